"""The shared page of the gunicorn hooks: phases of a replacement, entries, and the lock."""

from __future__ import annotations

import os
import signal

import pytest

from memguard_native.integrations.gunicorn_table import Phase, WorkerTable

OLD, NEW, OTHER = 100, 200, 300


class Clock:
    seconds = 1000.0

    def __call__(self):
        return int(self.seconds * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(clock):
    table = WorkerTable(clock_ns=clock)
    table.count_was_set(2)
    return table


def add(table, pid, *, serves=True):
    entry = table.reserve()
    table.tell_start(entry, pid)
    if serves:
        table.tell_serving(entry, pid)
    return entry


def raised(table, pid=OLD):
    assert table.take(pid)
    assert table.count_changed(3, 2) == 3


def test_a_replacement_begins_when_the_arbiter_counts_one_more(table):
    assert table.take(OLD)
    assert (table.phase, table.holder, table.count) == (Phase.asked, OLD, 2)
    assert table.count_changed(3, 2) == 3
    assert (table.phase, table.holder, table.count) == (Phase.raised, OLD, 3)


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_number_is_lowered_when_the_replaced_worker_is_reaped(table, cancelled):
    entry = add(table, OLD)
    raised(table)
    if cancelled:
        table.cancel()
    assert table.ended(OLD, entry)
    assert (table.phase, table.holder) == (Phase.idle, 0)


def test_other_workers_that_end_during_a_replacement_lower_nothing(table):
    entries = [add(table, OTHER), add(table, NEW, serves=False)]
    raised(table)
    assert not table.ended(OTHER, entries[0])
    assert not table.ended(NEW, entries[1])
    assert table.phase is Phase.raised


def test_after_a_cancel_the_first_that_never_served_lowers_the_number(table):
    served, starting = add(table, OTHER), add(table, NEW, serves=False)
    raised(table)
    table.cancel()
    assert table.holder == OLD
    assert not table.ended(OTHER, served)
    assert table.ended(NEW, starting)
    assert table.phase is Phase.idle


def test_a_signal_of_a_worker_that_died_is_undone_once(table):
    entry = add(table, OLD)
    assert table.take(OLD)
    assert not table.ended(OLD, entry)
    assert table.phase is Phase.stray
    assert table.count_changed(3, 2) == 2
    assert table.count == 2
    assert table.count_changed(3, 2) == 3
    assert table.count == 3


def test_a_signal_that_never_came_is_expected_for_a_minute_only(table, clock):
    entry = add(table, OLD)
    table.take(OLD)
    table.ended(OLD, entry)
    clock.seconds += 59
    assert not table.take(NEW)
    clock.seconds += 2
    assert table.take(NEW)


def test_people_may_add_a_worker_when_nothing_stray_is_expected_any_more(table, clock):
    entry = add(table, OLD)
    table.take(OLD)
    table.ended(OLD, entry)
    clock.seconds += 61
    assert table.count_changed(3, 2) == 3
    assert (table.phase, table.count) == (Phase.idle, 3)


def test_a_reload_ends_a_replacement_and_undoes_its_signal_if_that_is_on_its_way(table):
    table.take(OLD)
    table.count_was_set(4)
    assert (table.phase, table.count) == (Phase.stray, 4)
    assert table.count_changed(5, 4) == 4


def test_a_reload_takes_back_what_was_added(table):
    entry = add(table, OLD)
    raised(table)
    table.count_was_set(2)
    assert not table.ended(OLD, entry)
    assert (table.phase, table.count) == (Phase.idle, 2)


def test_no_workers_at_all_end_a_replacement(table):
    entry = add(table, OLD)
    raised(table)
    assert table.count_changed(0, 3) == 0
    assert not table.ended(OLD, entry)
    assert table.count == 0


def test_fewer_workers_by_hand_do_not_end_a_replacement(table):
    entry = add(table, OLD)
    raised(table)
    assert table.count_changed(2, 3) == 2
    assert table.ended(OLD, entry)


def test_the_last_worker_is_not_removed_because_there_are_two_for_a_while(table):
    table.count_was_set(1)
    table.take(OLD)
    table.count_changed(2, 1)
    assert table.count_changed(1, 2) == 2


def test_nothing_else_is_replaced_meanwhile(table):
    raised(table)
    assert not table.take(NEW)


def test_what_was_not_asked_for_leaves_nothing_behind(table):
    assert table.take(OLD)
    table.withdraw()
    assert table.phase is Phase.idle
    assert table.take(NEW)


def test_an_entry_tells_whether_its_worker_serves(table):
    mine = add(table, OLD)
    add(table, OTHER)
    starting = add(table, NEW, serves=False)
    table.reserve()
    assert table.others_serving(mine) == 1
    assert table.others_starting(mine) == [NEW]
    assert table.others_starting(starting) == []
    table.tell_serving(starting, NEW)
    assert table.others_serving(mine) == 2


def test_entries_are_used_again_and_run_out_without_an_error(table):
    entries = [table.reserve() for _ in range(4088)]
    assert len(set(entries)) == 4088
    assert table.reserve() is None
    table.ended(OLD, entries[7])
    assert table.reserve() == entries[7]


def test_the_lock_ends_with_its_holder_however_that_ends(table):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if table.take(os.getpid()) else b"0")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"1"
        assert table.holder == child
        table.count_was_set(2)  # the phase alone keeps nobody away now, the lock does
        table.count_changed(3, 2)
        assert table.phase is Phase.idle
        assert not table.take(OLD)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
    assert table.take(OLD)
