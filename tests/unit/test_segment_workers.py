"""What a worker of a supervisor tells in its slot of the segment."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from memguard_native import _core
from memguard_native.segment import attach, look_at, path_of

WORK = {"requests": 0, "in_flight": 0, "connections": 0, "inputs": 0, "tokens": 0}
UNTOLD = {
    "number": None,
    "state": None,
    "predecessor": None,
    "ready_since": None,
    "loop_heartbeat_age": None,
    "connections": 0,
    "inputs": 0,
    "tokens": 0,
    "private_bytes": None,
    "own_bytes": None,
    "forecast_seconds": None,
    "is_over_ceiling": False,
}


@pytest.fixture
def core():
    return attach().core


def told(core):
    found = core.worker(core.slot)
    return {name: found[name] for name in UNTOLD}


def next_owner(core):
    core.release_slot()
    core.claim_slot(os.stat("/proc/self/ns/pid").st_ino)


def tell_everything(core):
    core.begin_worker(3, predecessor=core.slot + 1)
    core.set_worker_state("ready")
    core.beat_loop()
    core.tell_work(requests=5, in_flight=1, connections=4, inputs=70, tokens=900)
    core.tell_memory(private_bytes=2**30, own_bytes=2**20)
    core.tell_forecast(60.0)


def test_a_process_that_is_no_worker_tells_nothing_of_a_worker(core):
    assert told(core) == UNTOLD


def test_a_worker_begins_with_its_number_and_starting(core):
    assert core.begin_worker(2)
    assert told(core) == UNTOLD | {"number": 2, "state": "starting"}


def test_one_of_the_workers_is_as_all_of_them_are(core):
    core.begin_worker(0)
    one, (of_all,) = core.worker(core.slot), core.workers()
    ages = {"heartbeat_age"}
    assert {k: v for k, v in one.items() if k not in ages} == {
        k: v for k, v in of_all.items() if k not in ages
    }


def test_a_slot_that_was_never_used_has_no_worker(core):
    assert core.worker(core.slot + 1) is None
    with pytest.raises(IndexError):
        core.worker(_core.SEGMENT_SLOTS)


@pytest.mark.parametrize("state", ["starting", "warming", "ready", "draining", "ended"])
def test_each_state_is_shown(core, state):
    assert core.set_worker_state(state)
    assert told(core)["state"] == state


@pytest.mark.parametrize("state", ["none", "READY", ""])
def test_another_state_is_refused(core, state):
    with pytest.raises(ValueError, match="state is none of the known ones"):
        core.set_worker_state(state)


def test_a_worker_that_drains_is_still_shown_since_when_it_was_ready(core):
    core.set_worker_state("ready")
    core.set_worker_state("draining")
    assert told(core)["ready_since"] == pytest.approx(time.time(), abs=60)


def test_the_age_of_the_loops_heartbeat_is_none_before_the_first_and_small_after_it(core):
    core.beat()
    assert told(core)["loop_heartbeat_age"] is None
    assert core.beat_loop()
    assert 0.0 <= told(core)["loop_heartbeat_age"] < 60.0


def test_work_is_told_as_totals_of_the_process(core):
    assert core.tell_work(requests=5, in_flight=2, connections=4, inputs=70, tokens=900)
    assert core.tell_work(requests=6, in_flight=1, connections=3, inputs=80, tokens=901)
    found = core.worker(core.slot)
    assert (found["requests"], found["requests_in_flight"], found["connections"]) == (6, 1, 3)
    assert (found["inputs"], found["tokens"]) == (80, 901)


def test_requests_told_by_two_are_counted_once(core):
    core.tell_work(**WORK | {"requests": 5})
    core.set_requests(6)
    core.tell_work(**WORK | {"requests": 5})
    assert core.worker(core.slot)["requests"] == 6


def test_memory_is_told_and_own_memory_may_be_nothing(core):
    assert core.tell_memory(private_bytes=2**30, own_bytes=0)
    assert (told(core)["private_bytes"], told(core)["own_bytes"]) == (2**30, 0)


def test_a_forecast_comes_nearer_and_can_be_taken_back(core):
    assert core.tell_forecast(60.0)
    assert 0.0 < told(core)["forecast_seconds"] <= 60.0
    core.tell_forecast(0.0)
    assert told(core)["forecast_seconds"] <= 0.0
    core.tell_forecast(float("inf"))
    assert told(core)["forecast_seconds"] > 1e8
    core.tell_forecast(None)
    assert told(core)["forecast_seconds"] is None


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_forecast_that_is_none_is_refused(core, seconds):
    with pytest.raises(ValueError, match="seconds must be >= 0"):
        core.tell_forecast(seconds)


def test_a_worker_names_the_one_that_it_relieves_and_which_owner_that_was(core):
    program = "from memguard_native.segment import attach; attach().core.begin_worker(0)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    before = core.slot + 1  # it has ended, and left its slot
    core.begin_worker(0, predecessor=before)
    assert told(core)["predecessor"] == {"slot": before, "generation": 1}


def test_a_worker_in_the_slot_of_the_one_that_it_relieves_names_the_owner_before(core):
    next_owner(core)
    core.begin_worker(0, predecessor=core.slot)
    assert told(core)["predecessor"] == {"slot": core.slot, "generation": 1}


def test_a_predecessor_beyond_the_last_slot_is_refused(core):
    with pytest.raises(IndexError):
        core.begin_worker(0, predecessor=_core.SEGMENT_SLOTS)


@pytest.mark.parametrize("begin", [next_owner, lambda core: core.begin_worker(3)])
def test_whoever_begins_has_told_nothing(core, begin):
    tell_everything(core)
    begin(core)
    found = told(core)
    for name in ("predecessor", "ready_since", "loop_heartbeat_age", "private_bytes", "own_bytes"):
        assert found[name] is None
    assert (found["connections"], found["forecast_seconds"]) == (0, None)


def test_the_next_owner_goes_on_counting_and_is_shown_its_own(core):
    tell_everything(core)
    next_owner(core)
    core.tell_work(**WORK | {"requests": 2, "inputs": 3, "tokens": 4})
    found = core.worker(core.slot)
    assert (found["requests"], found["requests_of_generation"]) == (7, 2)
    assert (found["inputs"], found["tokens"]) == (3, 4)


TELLING = {
    "begin_worker": lambda core: core.begin_worker(0),
    "set_worker_state": lambda core: core.set_worker_state("ready"),
    "beat_loop": lambda core: core.beat_loop(),
    "tell_work": lambda core: core.tell_work(**WORK),
    "tell_memory": lambda core: core.tell_memory(private_bytes=1, own_bytes=1),
    "tell_forecast": lambda core: core.tell_forecast(1.0),
}


@pytest.mark.parametrize("tell", TELLING.values(), ids=TELLING)
def test_without_a_slot_nothing_is_told(core, tell):
    slot = core.slot
    core.release_slot()
    assert not tell(core)
    found = core.worker(slot)
    assert {name: found[name] for name in UNTOLD} == UNTOLD


@pytest.mark.parametrize("tell", TELLING.values(), ids=TELLING)
def test_a_segment_mapped_read_only_is_not_told(core, tell):
    with pytest.raises(ValueError, match="read-only"):
        tell(look_at(path_of("default")).core)


@pytest.mark.parametrize("noise", [b"\xff", b"\x01", b"\x7f", b"\x80"])
def test_what_a_stranger_wrote_is_shown_without_harm(core, noise):
    offset = _core.SEGMENT_LAYOUT["slots"][0] + _core.SEGMENT_LAYOUT["worker"][0]
    with path_of("default").open("r+b") as file:
        file.seek(offset + core.slot * _core.SEGMENT_LAYOUT["slots"][1])
        file.write(noise * _core.SEGMENT_LAYOUT["worker"][1])
    found = told(core)
    assert (found["state"], found["predecessor"]) == (None, None)
    core.begin_worker(1)
    core.tell_work(**WORK)
    assert (told(core)["state"], told(core)["number"]) == ("starting", 1)
