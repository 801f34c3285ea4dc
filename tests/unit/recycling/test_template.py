"""A template goes on being there: what has died, or could not be loaded, is tried again."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from memguard_native.recycling.messages import Channel, Kind, open_channel
from memguard_native.recycling.processes import ZygoteProcess
from memguard_native.recycling.template import Template

LOAD_TIMEOUT = 30.0
LOADED = {"load_s": 0.1, "private_bytes": 0, "threads": [], "has_cuda": False}


class Zygote(ZygoteProcess):
    """Of no process: what it is sent is kept."""

    def __init__(self, channel, now):
        super().__init__(channel, os.getpid(), now)
        self.signals = []

    def signal(self, number):
        self.signals.append(number)


class Starter:
    """`others` are the zygotes' ends of the channels."""

    can_spawn = True

    def __init__(self):
        self.zygotes = []
        self.others = []

    def start_zygote(self, now):
        channel, other = open_channel()
        self.others.append(Channel(other))
        self.zygotes.append(Zygote(channel, now))
        return self.zygotes[-1]


class Watch:
    """Calls when told to, whatever is to be read."""

    def __init__(self):
        self.calls = {}

    def add(self, file, call):
        self.calls[file] = call

    def remove(self, file):
        self.calls.pop(file, None)

    def wait(self):
        for call in list(self.calls.values()):
            call()


class Surroundings:
    """A template with what it needs. Its owner uses what was loaded, and drops what was not."""

    def __init__(self):
        self.now = 0.0
        self.failures = []
        self.gone = []
        self.starter = Starter()
        self.watch = Watch()
        self.template = Template(
            self.starter,
            self.watch,
            start="zygote",
            load_timeout=LOAD_TIMEOUT,
            on_frame=self._on_frame,
            on_gone=lambda zygote, by_chance: self.gone.append((zygote, by_chance)),
            clock=lambda: self.now,
        )

    @property
    def started(self):
        return len(self.starter.others)

    def _on_frame(self, zygote, frame):
        if "failed" in frame.payload:
            self.failures.append(frame.payload["failed"])
            self.template.drop(zygote)
        else:
            self.template.use(zygote, frame.payload)

    def newest_says(self, **payload):
        self.starter.others[-1].send(Kind.loaded, payload=payload)
        self.watch.wait()

    def newest_dies(self):
        self.starter.others[-1].close()
        self.watch.wait()

    def is_tried_again_after(self, seconds):
        """Whether it is at that time, and not before."""
        before = self.started
        self.template.look(self.now + seconds - 0.1)
        early = self.started > before
        self.now += seconds
        self.template.look(self.now)
        return not early and self.started == before + 1


@pytest.fixture
def surroundings():
    made = Surroundings()
    yield made
    for other in made.starter.others:
        other.close()
    for file in list(made.watch.calls):
        file.close()


def test_a_zygote_that_died_is_replaced_at_once(surroundings):
    surroundings.newest_says(**LOADED)
    assert surroundings.template.can_start
    surroundings.newest_dies()
    assert not surroundings.template.can_start
    surroundings.template.look(surroundings.now)
    assert surroundings.started == 2


@pytest.mark.parametrize("how", ["it dies", "it fails"])
def test_a_load_that_fails_when_there_is_no_zygote_is_tried_again_later_and_later(
    surroundings, how
):
    surroundings.newest_says(**LOADED)
    surroundings.newest_dies()
    surroundings.template.look(surroundings.now)
    for wait in (2.0, 4.0, 8.0):
        if how == "it dies":
            surroundings.newest_dies()
        else:
            surroundings.newest_says(failed="told to fail")
        assert surroundings.is_tried_again_after(wait)
    surroundings.newest_says(**LOADED)
    assert surroundings.template.can_start


def test_a_renewal_that_fails_is_not_tried_again_where_the_old_zygote_still_forks(surroundings):
    surroundings.newest_says(**LOADED)
    surroundings.template.renew()
    assert surroundings.started == 2
    surroundings.newest_says(failed="told to fail")
    surroundings.template.look(surroundings.now + 50.0)
    assert surroundings.started == 2
    assert surroundings.template.can_start


def test_nothing_is_loaded_again_once_the_service_ends(surroundings):
    surroundings.newest_says(**LOADED)
    surroundings.newest_dies()
    surroundings.template.end()
    surroundings.template.look(surroundings.now + 50.0)
    assert surroundings.started == 1


def test_an_application_that_is_not_loaded_in_time_is_aborted_then_killed(surroundings):
    (zygote,) = surroundings.starter.zygotes
    surroundings.template.look(LOAD_TIMEOUT)
    assert zygote.signals == []
    surroundings.template.look(LOAD_TIMEOUT + 0.1)
    surroundings.template.look(LOAD_TIMEOUT + 2.0)
    assert zygote.signals == [signal.SIGABRT]
    surroundings.template.look(LOAD_TIMEOUT + 2.1)
    assert zygote.signals == [signal.SIGABRT, signal.SIGKILL]
    surroundings.newest_dies()
    assert surroundings.failures == ["it was not loaded within 30 s; see its log"]


def test_a_standstill_of_the_supervisor_takes_no_time_from_who_loads(surroundings):
    (zygote,) = surroundings.starter.zygotes
    surroundings.template.was_late(100.0)
    surroundings.template.look(LOAD_TIMEOUT + 100.0)
    assert zygote.signals == []


def test_who_still_loads_when_the_service_ends_is_killed(surroundings):
    (zygote,) = surroundings.starter.zygotes
    surroundings.template.end()
    assert zygote.signals == [signal.SIGKILL]


def test_a_zygote_may_finish_what_it_has_to_when_the_service_ends(surroundings):
    surroundings.newest_says(**LOADED)
    surroundings.template.end()
    assert surroundings.starter.zygotes[0].signals == []
    assert not surroundings.template.is_gone
    surroundings.newest_dies()
    assert surroundings.template.is_gone


def test_an_end_that_was_wanted_is_told_from_one_by_chance(surroundings):
    surroundings.newest_says(**LOADED)
    surroundings.template.renew()
    (old, new) = surroundings.starter.zygotes
    surroundings.newest_says(**LOADED)
    surroundings.starter.others[0].close()
    surroundings.watch.wait()
    assert surroundings.gone == [(old, False)]
    surroundings.newest_dies()
    assert surroundings.gone[1:] == [(new, True)]
    surroundings.template.look(surroundings.now)
    surroundings.newest_says(**LOADED)
    surroundings.template.end()
    surroundings.newest_dies()
    assert surroundings.gone[2:] == [(surroundings.starter.zygotes[2], False)]


def test_the_end_of_one_that_has_not_loaded_the_application_harms_no_worker(surroundings):
    surroundings.newest_dies()
    assert surroundings.gone == [(surroundings.starter.zygotes[0], False)]


def test_a_zygote_that_talks_nonsense_is_killed(surroundings):
    (zygote,), (other,) = surroundings.starter.zygotes, surroundings.starter.others
    with socket.socket(fileno=os.dup(other.fileno())) as end:
        end.send(b"x")
    surroundings.watch.wait()
    assert zygote.signals == [signal.SIGKILL]
    surroundings.template.reaped(zygote.pid)
    assert "cannot be understood" in surroundings.failures[0]
