"""A gunicorn worker's own memory, and how it has itself replaced: both without gunicorn."""

from __future__ import annotations

import logging

import pytest

from memguard_native.integrations.gunicorn_table import Phase, WorkerTable
from memguard_native.integrations.gunicorn_worker import OwnMemory, Replacement
from memguard_native.recycling.memory_rule import MemoryRule

MIB = 2**20
OLD, NEW = 100, 200


class Memory:
    """What the system would tell of a worker that has inherited 300 MiB."""

    def __init__(self, own_mib):
        self.own_mib = own_mib
        self.inherited_mib = 300
        self.garbage_mib = 0
        self.is_exact_known = True

    def private_bytes(self):
        return (self.own_mib + self.inherited_mib) * MIB

    def exact_bytes(self):
        return self.own_mib * MIB if self.is_exact_known else None

    def give_back(self):
        self.own_mib -= self.garbage_mib
        self.garbage_mib = 0


def watch(memory, *, trim_first=True):
    rule = MemoryRule(100 * MIB, confirm_samples=3, hysteresis=0.9, trim_first=trim_first)
    return OwnMemory(
        rule,
        private_bytes=memory.private_bytes,
        exact_bytes=memory.exact_bytes,
        give_back=memory.give_back,
    )


def looks(own, count):
    for _ in range(count):
        own.look()
    return own.excess


def test_what_came_by_the_fork_does_not_count():
    memory = Memory(50)
    own = watch(memory)
    assert own.begin_bytes == 50 * MIB
    assert looks(own, 10) is None


def test_three_samples_over_the_limit_are_too_much_and_two_are_not():
    memory = Memory(50)
    own = watch(memory, trim_first=False)
    memory.own_mib = 120
    assert looks(own, 2) is None
    assert looks(own, 1) == "120.0 MiB of its own"


def test_what_a_trim_gives_back_is_no_reason():
    memory = Memory(50)
    own = watch(memory)
    memory.own_mib, memory.garbage_mib = 120, 60
    assert looks(own, 10) is None
    assert memory.own_mib == 60


def test_the_reason_tells_memory_before_and_after_the_trim():
    memory = Memory(50)
    own = watch(memory)
    memory.own_mib, memory.garbage_mib = 140, 10
    assert looks(own, 3) == "140.0 MiB of its own, and 130.0 MiB after a trim"


def test_the_exact_look_overrules_the_cheap_figure():
    memory = Memory(50)
    own = watch(memory)
    memory.inherited_mib += 200  # private memory grew, but not that of this worker
    assert looks(own, 10) is None


def test_the_reason_vanishes_when_memory_falls_well_below_the_limit():
    memory = Memory(50)
    own = watch(memory)
    memory.own_mib = 120
    assert looks(own, 3) is not None
    memory.own_mib = 95
    assert looks(own, 3) is not None
    memory.own_mib = 80
    assert looks(own, 1) is None


def test_where_the_exact_figure_is_not_known_private_memory_counts():
    memory = Memory(50)
    memory.is_exact_known = False
    memory.inherited_mib = 0
    own = watch(memory)
    memory.own_mib = 120
    assert looks(own, 3) is not None


# --- the replacement ------------------------------------------------------------------------------


class World:
    """An arbiter with one worker, OLD, which asks to be replaced."""

    def __init__(self):
        self.seconds = 1000.0
        self.table = WorkerTable(clock_ns=lambda: int(self.seconds * 1e9))
        self.table.count_was_set(1)
        self.entry = self.add(OLD, serves=True)
        self.added = 0
        self.killed = []
        self.may_signal = True
        self.replacement = Replacement(
            self.table,
            self.entry,
            OLD,
            add_worker=self.add_worker,
            kill=self.killed.append,
            log=logging.getLogger("gunicorn.test"),
            ready_timeout=10.0,
        )

    def add(self, pid, *, serves):
        entry = self.table.reserve()
        self.table.tell_start(entry, pid)
        if serves:
            self.table.tell_serving(entry, pid)
        return entry

    def add_worker(self):
        if not self.may_signal:
            raise PermissionError
        self.added += 1

    def step(self):
        return self.replacement.step(self.seconds)


@pytest.fixture
def world():
    return World()


def test_it_may_go_once_another_worker_serves(world):
    assert not world.step()
    assert world.added == 1
    world.table.count_changed(2, 1)
    assert not world.step()
    entry = world.add(NEW, serves=False)
    assert not world.step()
    world.table.tell_serving(entry, NEW)
    assert world.step()
    assert world.added == 1


def test_it_waits_for_all_workers_that_are_wanted(world):
    world.table.count_was_set(2)
    world.step()
    world.table.count_changed(3, 2)
    world.add(NEW, serves=True)
    assert not world.step()
    world.add(NEW + 1, serves=True)
    assert world.step()


def test_while_another_one_is_replaced_it_waits_its_turn(world):
    world.table.take(NEW)
    assert not world.step()
    assert (world.added, world.replacement.is_under_way) == (0, False)


def test_a_worker_that_never_serves_is_killed_and_the_old_one_goes_on(world, caplog):
    world.step()
    world.table.count_changed(2, 1)
    entry = world.add(NEW, serves=False)
    world.seconds += 10.5
    assert not world.step()
    assert "no worker came to serve within ready_timeout, 10 s" in caplog.text
    assert not world.step()
    assert world.killed == [NEW]
    assert world.table.ended(NEW, entry)
    assert not world.step()
    assert not world.replacement.is_under_way


def test_a_worker_that_serves_at_the_last_moment_replaces_it_all_the_same(world):
    world.step()
    world.table.count_changed(2, 1)
    entry = world.add(NEW, serves=False)
    world.seconds += 10.5
    world.step()
    world.table.tell_serving(entry, NEW)
    assert world.step()
    assert world.killed == []


def test_after_a_failure_it_asks_again_in_a_minute(world):
    world.step()
    world.table.count_was_set(1)
    world.table.count_changed(2, 1)
    assert not world.step()
    world.seconds += 59
    world.step()
    assert world.added == 1
    world.seconds += 2
    world.step()
    assert world.added == 2


def test_an_arbiter_that_does_not_answer_is_not_waited_for_for_ever(world, caplog):
    world.step()
    world.seconds += 10.5
    assert not world.step()
    assert "gunicorn does not answer SIGTTIN" in caplog.text
    assert world.table.phase is Phase.stray


def test_where_the_arbiter_may_not_be_signalled_it_goes_first(world, caplog):
    world.may_signal = False
    assert world.step()
    assert "runs as another user" in caplog.text
    assert world.table.phase is Phase.idle
