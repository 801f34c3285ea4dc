"""The watchdog as Python sees it: what it refuses, whom it tells, and what it leaves alone."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("recycling is for Linux so far", allow_module_level=True)

from memguard_native._core import Watchdog, private_bytes
from memguard_native.segment import attach, look_at, path_of

LONG = 20.0  # seconds for what has to come


@pytest.fixture
def channel():
    """A worker's end and the supervisor's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends[1].settimeout(LONG)
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def supervisor():
    """A process that lives until its input ends, and its pidfd."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        yield pidfd
        process.kill()
        os.close(pidfd)


@pytest.fixture
def setup(channel, supervisor):
    return {
        "control_fd": channel[0].fileno(),
        "message": b"over",
        "supervisor_pidfd": supervisor,
        "grace": 3600.0,
        "interval": 0.002,
    }


@pytest.fixture
def watch(setup):
    """Makes watchdogs that are stopped in the end."""
    made = []

    def new(**changes):
        made.append(Watchdog(**setup | changes))
        return made[-1]

    yield new
    for one in made:
        one.stop()


def is_told(end, timeout):
    return bool(select.select([end], [], [], timeout)[0])


def flag(core):
    return core.worker(core.slot)["is_over_ceiling"]


def test_private_bytes_follow_what_is_allocated():
    before = private_bytes()
    kept = bytearray(b"x") * (32 << 20)
    assert private_bytes() - before == pytest.approx(len(kept), rel=0.1)


def test_memory_over_the_ceiling_is_told_in_the_slot_and_by_one_message(watch, channel):
    core = attach().core
    watchdog = watch(segment=core)
    watchdog.watch_memory(1, 0)
    watchdog.start()
    assert channel[1].recv(100) == b"over"
    assert flag(core)
    watchdog.watch_memory(2, 0)
    assert not is_told(channel[1], 0.05)


def test_only_memory_beyond_the_offset_is_its_own(watch, channel):
    watchdog = watch()
    watchdog.watch_memory(64 << 20, private_bytes())
    watchdog.start()
    assert not is_told(channel[1], 0.05)
    kept = bytearray(b"x") * (96 << 20)
    assert channel[1].recv(100) == b"over"
    del kept


def test_the_slot_has_the_memory_that_is_over_the_ceiling(watch, channel):
    core = attach().core
    core.begin_worker(0)
    watchdog = watch(segment=core)
    offset = private_bytes() - (8 << 20)
    watchdog.watch_memory(4 << 20, offset)
    watchdog.start()
    assert channel[1].recv(100) == b"over"
    told = core.worker(core.slot)
    assert told["own_bytes"] == told["private_bytes"] - offset > 4 << 20


def test_memory_that_is_not_watched_is_never_over(watch, channel):
    core = attach().core
    watchdog = watch(segment=core)
    watchdog.watch_memory(1, 0)
    watchdog.watch_memory(None, 0)
    watchdog.start()
    assert not is_told(channel[1], 0.05)
    assert not flag(core)


def test_nothing_is_looked_at_before_start_and_after_stop(watch, channel):
    watchdog = watch()
    watchdog.watch_memory(1, 0)
    assert not is_told(channel[1], 0.05)
    watchdog.stop()
    watchdog.stop()
    watchdog.start()
    assert not is_told(channel[1], 0.05)


def test_a_slot_that_was_given_back_is_written_no_more(watch, channel):
    core = attach().core
    slot = core.slot
    core.release_slot()
    watchdog = watch(segment=core)
    watchdog.watch_memory(1, 0)
    watchdog.start()
    assert channel[1].recv(100) == b"over"
    assert not core.worker(slot)["is_over_ceiling"]


def test_the_segment_lives_as_long_as_the_watchdog_that_writes_into_it(watch, channel):
    from memguard_native import _core

    core = attach().core
    before = sys.getrefcount(core)
    watchdog = watch(segment=core)
    assert sys.getrefcount(core) == before + 1
    assert isinstance(core, _core.Segment)
    watchdog.stop()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"control_fd": -1}, "control_fd must be an open descriptor, got -1"),
        ({"supervisor_pidfd": 1 << 20}, "supervisor_pidfd must be an open descriptor"),
        ({"message": b""}, "message must not be empty"),
        ({"grace": -1.0}, "grace must be >= 0"),
        ({"grace": float("nan")}, "grace must be >= 0"),
        ({"interval": 0.0}, r"interval >= 0\.001"),
        ({"interval": float("nan")}, r"interval >= 0\.001"),
    ],
)
def test_what_cannot_work_is_refused(setup, wrong, told):
    with pytest.raises(ValueError, match=told):
        Watchdog(**setup | wrong)


def test_a_segment_mapped_read_only_is_refused(setup):
    attach()
    with pytest.raises(ValueError, match="read-only"):
        Watchdog(**setup, segment=look_at(path_of("default")).core)


@pytest.mark.parametrize("hard_bytes", [0, -1])
def test_a_ceiling_that_is_none_is_refused(watch, hard_bytes):
    with pytest.raises(ValueError, match="hard_bytes must be > 0"):
        watch().watch_memory(hard_bytes, 0)
