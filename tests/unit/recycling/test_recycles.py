"""What became of each worker that was replaced."""

from __future__ import annotations

import json
import time

import pytest

from memguard_native.recycling.messages import open_channel
from memguard_native.recycling.processes import WorkerProcess
from memguard_native.recycling.recycles import RecycleRecord, Recycles
from memguard_native.recycling.settings import WorkerPlace

MIB = 2**20
FULL = {
    "at": 1700000000.0,
    "number": 1,
    "reason": "memory",
    "evidence": {"own_bytes": 300, "max_bytes": 200},
    "generation": 4,
    "pid": 400,
    "successor_generation": 7,
    "successor_pid": 700,
    "boot_s": 0.25,
    "drain_s": 1.5,
    "handed_over": 8,
    "lingered": 2,
    "aborted": 1,
    "private_bytes_before": 300 * MIB,
    "private_bytes_after": 100 * MIB,
}
BARE = {
    **FULL,
    "evidence": {},
    "successor_generation": None,
    "successor_pid": None,
    "boot_s": None,
    "drain_s": None,
    "private_bytes_before": None,
    "private_bytes_after": None,
}


@pytest.fixture
def worker():
    """Makes workers that have no process."""
    ends = []

    def new(generation: int, **fields: object) -> WorkerProcess:
        ours, theirs = open_channel()
        ends.extend((ours, theirs))
        place = WorkerPlace(number=1, generation=generation)
        made = WorkerProcess(place, ours, replaces=None, now=0.0)
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    yield new
    for end in ends:
        end.close()


# --- a record -------------------------------------------------------------------------------------


def test_a_record_says_in_a_line_why_and_how():
    assert str(RecycleRecord(**FULL)) == (
        "worker 1 was replaced: memory; at own_bytes=300, max_bytes=200; boot 0.25 s; "
        "drain 1.50 s; "
        "8 connections handed over, 1 aborted; memory 300.0 -> 100.0 MiB"
    )


def test_a_record_is_silent_about_what_is_not_known():
    assert str(RecycleRecord(**BARE)) == (
        "worker 1 was replaced: memory; 8 connections handed over, 1 aborted"
    )


@pytest.mark.parametrize("fields", [FULL, BARE])
def test_a_record_as_json_has_all_its_fields_and_what_was_freed(fields):
    told = json.loads(json.dumps(RecycleRecord(**fields).to_dict()))
    freed_bytes = told.pop("freed_bytes")
    assert told == fields
    assert freed_bytes == RecycleRecord(**fields).freed_bytes


@pytest.mark.parametrize(
    ("before", "after", "freed"),
    [(300, 100, 200), (100, 300, 0), (None, 100, None), (300, None, None)],
)
def test_what_was_freed_is_the_difference_and_never_negative(before, after, freed):
    memory = {"private_bytes_before": before, "private_bytes_after": after}
    assert RecycleRecord(**{**FULL, **memory}).freed_bytes == freed


# --- all of a service -----------------------------------------------------------------------------


def test_a_record_is_made_of_the_old_worker_and_its_successor(worker):
    old = worker(
        4,
        pid=400,
        evidence={"requests": 1000},
        drain_at=10.0,
        farewell={"handed_over": 8, "lingered": 2, "aborted": 1},
        page={"own_bytes": 300},
    )
    new = worker(7, pid=700, boot_s=0.25, ready_bytes=100)
    begun = time.time()
    record = Recycles().add(old, new, "requests", 11.5)
    assert begun <= record.at <= time.time()
    assert record == RecycleRecord(
        at=record.at,
        number=1,
        reason="requests",
        evidence={"requests": 1000},
        generation=4,
        pid=400,
        successor_generation=7,
        successor_pid=700,
        boot_s=0.25,
        drain_s=1.5,
        handed_over=8,
        lingered=2,
        aborted=1,
        private_bytes_before=300,
        private_bytes_after=100,
    )


def test_a_worker_that_crashed_leaves_a_record_without_drain_and_successor(worker):
    record = Recycles().add(worker(4), None, "crash", 11.5)
    assert record == RecycleRecord(
        at=record.at,
        number=1,
        reason="crash",
        evidence={},
        generation=4,
        pid=None,
        successor_generation=None,
        successor_pid=None,
        boot_s=None,
        drain_s=None,
    )


def test_totals_are_counted_by_reason(worker):
    recycles = Recycles()
    farewell = {"handed_over": 3, "aborted": 1}
    for reason, own in (("memory", 300), ("memory", 200), ("requests", 50)):
        old = worker(4, farewell=farewell, page={"own_bytes": own})
        recycles.count(old)
        recycles.add(old, worker(5, ready_bytes=100), reason, 1.0)
    recycles.capacity_gap_seconds += 0.12345
    assert recycles.totals() == {
        "recycles": {"memory": 2, "requests": 1},
        "freed_bytes": {"memory": 300, "requests": 0},
        "handed_over": 9,
        "aborted": 3,
        "only_told": 0,
        "capacity_gap_seconds": 0.123,
    }


def test_the_newest_twenty_records_are_kept(worker):
    recycles = Recycles()
    for generation in range(25):
        recycles.add(worker(generation), None, "requests", 1.0)
    assert [record.generation for record in recycles.newest] == list(range(5, 25))
    assert recycles.by_reason["requests"] == 25


def test_connections_of_a_worker_that_leaves_no_record_are_counted_too(worker):
    recycles = Recycles()
    recycles.count(worker(4, farewell={"handed_over": 3, "aborted": 1}))
    totals = recycles.totals()
    assert (totals["handed_over"], totals["aborted"], totals["recycles"]) == (3, 1, {})


def test_a_worker_that_died_at_work_has_aborted_its_requests(worker):
    recycles = Recycles()
    recycles.count(worker(4, page={"requests_in_flight": 2, "connections": 9}))
    assert recycles.aborted == 2


def test_a_worker_that_died_while_it_drained_has_aborted_what_it_still_held(worker):
    recycles = Recycles()
    recycles.count(worker(4, drain_at=1.0, page={"requests_in_flight": 2, "connections": 3}))
    assert recycles.aborted == 3
