"""What a process tells in its slot of the segment, and what the next one finds there."""

from __future__ import annotations

import os
import struct
import time

import pytest

from memguard_native import _core
from memguard_native.memory.attribution import CAUSES
from memguard_native.segment import attach, look_at, path_of

NOTHING = {
    "rate_mb_per_hour": None,
    "mb_per_1000_requests": None,
    "mb_per_load": None,
    "baseline_mb": None,
    "retained_mb": None,
    "warm_up_minutes": None,
    "requests": None,
}
ALL = {
    "rate_mb_per_hour": 23.5,
    "mb_per_1000_requests": 0.25,
    "mb_per_load": 1.5,
    "baseline_mb": 80.0,
    "retained_mb": 210.0,
    "warm_up_minutes": 4.0,
    "requests": 12345,
}


@pytest.fixture
def core():
    return attach().core


def worker(core):
    (found,) = core.workers()
    return found


def learnt_offset():
    slots, _ = _core.SEGMENT_LAYOUT["slots"]
    learnt, size = _core.SEGMENT_LAYOUT["learnt"]
    return slots + learnt, size


def test_requests_and_limit_are_shown_with_their_worker(core):
    assert (worker(core)["requests"], worker(core)["memory_limit_bytes"]) == (0, None)
    assert core.set_requests(5)
    assert core.set_requests(7)
    assert core.set_memory_limit(2**31)
    assert (worker(core)["requests"], worker(core)["requests_of_generation"]) == (7, 7)
    assert worker(core)["memory_limit_bytes"] == 2**31
    core.set_memory_limit(None)
    assert worker(core)["memory_limit_bytes"] is None


def test_requests_of_the_next_owner_begin_at_those_of_the_one_before(core):
    core.set_requests(5)
    core.release_slot()
    core.claim_slot(os.stat("/proc/self/ns/pid").st_ino)
    core.set_requests(1)
    assert (worker(core)["requests"], worker(core)["requests_of_generation"]) == (6, 1)


def test_a_smaller_total_of_requests_sets_nothing_back(core):
    core.set_requests(5)
    core.set_requests(3)
    assert worker(core)["requests"] == 5


@pytest.mark.parametrize("values", [NOTHING, ALL])
def test_what_was_learnt_comes_back_with_its_author_and_time(core, values):
    assert core.learnt(core.slot) is None
    assert core.set_learnt(state="alert", cause="native-heap", **values)
    found = core.learnt(core.slot)
    assert found.pop("at") == pytest.approx(time.time(), abs=60)
    assert (found.pop("generation"), found.pop("pid")) == (1, os.getpid())
    assert found == {"state": "alert", "cause": "native-heap", **values}
    assert worker(core)["learnt"]["cause"] == "native-heap"


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_each_cause_that_there_is_can_be_kept(core, cause):
    core.set_learnt(state="alert", cause=cause, **NOTHING)
    assert core.learnt(core.slot)["cause"] == cause


@pytest.mark.parametrize("state", ["learning", "steady", "suspect", "alert"])
def test_each_state_that_there_is_can_be_kept(core, state):
    core.set_learnt(state=state, cause="unknown", **NOTHING)
    assert core.learnt(core.slot)["state"] == state


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "panic"},
        {"cause": "gremlins"},
        *({name: value} for name in ALL if name != "requests" for value in (-1.0, 1e300)),
        {"rate_mb_per_hour": float("nan")},
        {"baseline_mb": float("inf")},
        {"requests": 2**63},
    ],
)
def test_what_no_process_can_learn_is_refused_and_leaves_what_was_there(core, wrong):
    core.set_learnt(state="steady", cause="unknown", **ALL)
    before = core.learnt(core.slot)
    with pytest.raises(ValueError, match=r"none of the known ones|are finite, from 0"):
        core.set_learnt(**({"state": "alert", "cause": "mmap"} | ALL | wrong))
    assert core.learnt(core.slot) == before


@pytest.mark.parametrize("noise", [b"\xff", b"\x01", b"\x7f", b"\x00"])
def test_what_a_stranger_wrote_is_none_or_legal(core, noise):
    core.set_learnt(state="alert", cause="mmap", **ALL)
    offset, size = learnt_offset()
    with path_of("default").open("r+b") as file:
        file.seek(offset)
        file.write(noise * size)
    assert core.learnt(core.slot) is None
    assert worker(core)["learnt"] is None
    assert core.set_learnt(state="steady", cause="unknown", **NOTHING)
    assert core.learnt(core.slot)["state"] == "steady"


def test_a_newer_copy_that_was_not_finished_is_not_read(core):
    core.set_learnt(state="alert", cause="mmap", **ALL)
    before = core.learnt(core.slot)
    offset, _ = learnt_offset()
    # Version 1 is in the second copy; the first is where version 2 would be written.
    with path_of("default").open("r+b") as file:
        file.seek(offset)
        assert struct.unpack("<Q", file.read(8)) == (1,)
        file.write(b"\x02" * 64)
    assert core.learnt(core.slot) == before


def test_without_a_slot_nothing_is_kept(core):
    core.release_slot()
    assert not core.set_requests(1)
    assert not core.set_memory_limit(1)
    assert not core.set_learnt(state="alert", cause="mmap", **ALL)
    assert worker(core)["requests"] == 0


def test_a_segment_mapped_read_only_is_not_written(core):
    outside = look_at(path_of("default")).core
    for write in (
        lambda: outside.set_requests(1),
        lambda: outside.set_memory_limit(1),
        lambda: outside.set_learnt(state="alert", cause="mmap", **ALL),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert outside.learnt(0) is None


def test_a_slot_beyond_the_last_is_refused(core):
    with pytest.raises(IndexError):
        core.learnt(_core.SEGMENT_SLOTS)


@pytest.mark.parametrize("count", [-1, 2**64])
def test_a_count_that_is_none_is_refused(core, count):
    with pytest.raises(TypeError):
        core.set_requests(count)
