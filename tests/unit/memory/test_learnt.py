"""What a process leaves for its successor, and how that one finds it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from memguard_native import _core
from memguard_native.memory.history import keeper
from memguard_native.memory.learnt import Learnt, find_learnt, keep_learnt, learnt_of
from memguard_native.segment import attach

LEAK = Learnt(
    state="alert",
    cause="native-heap",
    rate_mb_per_hour=23.5,
    mb_per_1000_requests=0.25,
    baseline_mb=80.0,
    retained_mb=210.0,
    warm_up_minutes=4,
    requests=12345,
)

WORKER = """
import os, signal, sys
from memguard_native.memory.history import keeper
from memguard_native.memory.learnt import Learnt
keeper(None).keep_learnt(Learnt(state=sys.argv[1], rate_mb_per_hour=float(sys.argv[2])))
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print("kept", flush=True)
if sys.argv[3] == "stays":
    sys.stdin.read()
"""


def run_worker(state, rate, end):
    command = [sys.executable, "-c", WORKER, state, str(rate), end]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end_worker(state, rate, end="exits"):
    with run_worker(state, rate, end) as worker:
        worker.communicate(timeout=60)


def test_what_is_kept_comes_back_with_its_author_and_time():
    core = attach().core
    assert learnt_of(core, core.slot) is None
    assert keep_learnt(core, LEAK)
    found = learnt_of(core, core.slot)
    assert found.at == pytest.approx(time.time(), abs=60)
    assert (found.generation, found.pid) == (1, os.getpid())
    stamps = {"at": None, "generation": None, "pid": None}
    assert found.to_dict() | stamps == LEAK.to_dict()


def test_the_first_process_follows_nobody():
    assert find_learnt(attach().core) is None


def test_what_a_process_keeps_is_not_its_own_inheritance():
    core = attach().core
    keep_learnt(core, LEAK)
    assert find_learnt(core) is None


def test_a_successor_in_the_same_slot_finds_it():
    end_worker("alert", 12.0)
    core = attach().core
    assert core.slot == 0
    found = find_learnt(core)
    assert (found.state, found.rate_mb_per_hour, found.generation) == ("alert", 12.0, 1)


def test_a_successor_of_a_killed_process_finds_it_in_another_slot():
    end_worker("alert", 12.0, "killed")
    core = attach().core
    assert core.slot == 1, "the slot of a killed process is used last"
    assert find_learnt(core).rate_mb_per_hour == 12.0


def test_the_newest_that_was_left_counts():
    end_worker("alert", 12.0, "killed")
    end_worker("alert", 30.0, "killed")
    end_worker("steady", 0.0)
    assert find_learnt(attach().core).state == "steady"


@pytest.mark.parametrize(("state", "is_found"), [("alert", True), ("steady", False)])
def test_a_living_process_is_a_predecessor_if_it_leaks(state, is_found):
    with run_worker(state, 12.0, "stays") as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "kept\n"
        assert (find_learnt(attach().core) is not None) == is_found
        worker.communicate(timeout=60)


def test_what_is_not_legal_there_is_nothing(segment_directory):
    end_worker("alert", 12.0)
    (path,) = segment_directory.glob("*.seg")
    offset = _core.SEGMENT_LAYOUT["slots"][0] + _core.SEGMENT_LAYOUT["learnt"][0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(_core.SEGMENT_LAYOUT["learnt"][1]))
    assert find_learnt(attach().core) is None


def test_a_keeper_finds_first_and_keeps_then():
    end_worker("alert", 12.0)
    keep = keeper(None)
    assert keep.find_learnt().rate_mb_per_hour == 12.0
    keep.keep_learnt(LEAK)
    assert learnt_of(attach().core, 0).rate_mb_per_hour == 23.5


def test_a_keeper_tells_requests_as_they_grow_and_begins_anew_with_the_slot_of_a_child():
    keep = keeper(None)
    keep.tell_requests(10)
    keep.tell_requests(15)
    (worker,) = attach().core.workers()
    assert worker["requests"] == 15
    core = attach().core
    core.release_slot()
    core.claim_slot(os.stat("/proc/self/ns/pid").st_ino)
    keep.tell_requests(4)  # the counter of a forked child began at 0
    (worker,) = core.workers()
    assert worker["requests"] == 19


def test_a_keeper_tells_the_limit():
    keeper(None).tell_limit(2**30)
    (worker,) = attach().core.workers()
    assert worker["memory_limit_bytes"] == 2**30
