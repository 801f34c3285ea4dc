"""What the supervisor waits for."""

from __future__ import annotations

import os
import signal

import pytest

from memguard_native.recycling.selection import Selection, SignalPipe


@pytest.fixture
def selection():
    selection = Selection()
    yield selection
    selection.close()


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_what_there_is_to_read_is_told_once_however_often_it_was_added(selection, pipe):
    told = []
    selection.add(pipe[0], lambda: told.append(os.read(pipe[0], 8)))
    selection.add(pipe[0], lambda: told.append(b"a second one"))
    os.write(pipe[1], b"x")
    selection.wait(10.0)
    assert told == [b"x"]


def test_what_was_removed_is_not_told(selection, pipe):
    selection.add(pipe[0], pytest.fail)
    selection.remove(pipe[0])
    selection.remove(pipe[0])
    os.write(pipe[1], b"x")
    selection.wait(0.0)


def test_signals_are_told_by_the_selection_and_not_by_their_handler(selection):
    told = []
    signals = SignalPipe(selection, [signal.SIGUSR1], told.append)
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert told == []
        selection.wait(10.0)
        assert told == [signal.SIGUSR1]
    finally:
        signals.close()


def test_all_is_as_it_was_once_signals_are_not_heard_any_more(selection, pipe):
    os.set_blocking(pipe[1], False)
    before = signal.getsignal(signal.SIGUSR1)
    outer = signal.set_wakeup_fd(pipe[1])
    descriptors = set(os.listdir("/proc/self/fd"))
    try:
        SignalPipe(selection, [signal.SIGUSR1], pytest.fail).close()
        assert signal.getsignal(signal.SIGUSR1) == before
        assert set(os.listdir("/proc/self/fd")) == descriptors
    finally:
        assert signal.set_wakeup_fd(outer) == pipe[1]
