"""What the supervisor does next: starts, replacements and drains. Memory: test_planner_memory."""

from __future__ import annotations

import itertools

import pytest

from memguard_native.recycling.planner import Drain, Start, WorkerState
from memguard_native.recycling.reasons import Reason

from .fleet import AGED, Fleet, starts

# --- first starts, crashes ------------------------------------------------------------------------


def test_all_that_are_wanted_start_at_once():
    fleet = Fleet(wanted=3)
    assert fleet.decide() == [Start(number, None, None) for number in range(3)]


def test_what_starts_already_is_not_started_again():
    fleet = Fleet(wanted=3)
    fleet.decide()
    assert fleet.decide(after=0.1) == []


def test_a_worker_that_crashed_is_started_again_at_once():
    fleet = Fleet().begin()
    fleet.ends(2)
    assert fleet.decide() == [Start(1, None, None)]


def test_one_that_crashes_again_within_a_minute_waits():
    fleet = Fleet().begin()
    fleet.ends(2)
    fleet.decide()
    fleet.is_ready(3)
    fleet.ends(3)
    assert [starts(fleet.decide(after=after)) for after in (0.0, 0.9, 0.1)] == [[], [], [1]]


def test_the_end_of_one_that_was_told_to_end_is_no_crash():
    fleet = Fleet(wanted=1).begin()
    for _ in range(5):
        fleet.recycle(fleet.newest)
    fleet.ends(fleet.newest)
    assert starts(fleet.decide()) == [0]


def test_a_worker_that_is_replaced_as_it_should_ends_the_row_of_crashes():
    fleet = Fleet(wanted=1).begin()
    for _ in range(3):
        fleet.ends(fleet.newest)
        fleet.decide(after=10.0)
        fleet.is_ready(fleet.newest)
    fleet.recycle(fleet.newest)
    fleet.ends(fleet.newest)
    assert starts(fleet.decide()) == [0]


def test_a_worker_that_waits_for_its_start_does_not_keep_others_waiting():
    fleet = Fleet(wanted=3).begin()
    fleet.ends(1)
    fleet.decide()
    fleet.ends(fleet.newest)
    fleet.ends(3)
    assert starts(fleet.decide()) == [2]


def test_ends_without_a_ready_worker_are_hopeless_after_more_than_ten():
    fleet = Fleet(wanted=5, rules={"max_concurrent": 1})
    for _ in range(2):
        fleet.decide(after=60.0)
        fleet.ends(*fleet.in_state(WorkerState.starting))
    assert not fleet.is_hopeless
    fleet.decide(after=60.0)
    fleet.ends(fleet.newest)
    fleet.decide()
    assert fleet.is_hopeless


def test_a_service_with_a_ready_worker_is_not_hopeless():
    fleet = Fleet(wanted=2)
    fleet.decide()
    fleet.is_ready(1)
    for _ in range(40):
        fleet.ends(fleet.newest)
        fleet.decide(after=60.0)
        assert not fleet.is_hopeless


# --- one replacement ------------------------------------------------------------------------------


def test_the_replacement_starts_first_and_the_old_one_drains_when_it_is_ready():
    fleet = Fleet().begin()
    fleet.asks(1)
    assert fleet.decide() == [Start(0, 1, Reason.requests)]
    assert fleet.decide(after=10.0) == []
    fleet.change(3, state=WorkerState.warming)
    assert fleet.decide(after=10.0) == []
    fleet.is_ready(3)
    assert fleet.decide() == [Drain(1, Reason.requests, retires_first=False)]


def test_a_draining_worker_is_drained_once():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.decide()
    fleet.is_ready(3)
    fleet.decide()
    assert fleet.decide(after=1.0) == []


def test_a_worker_has_one_replacement_at_a_time():
    fleet = Fleet(rules={"max_concurrent": 5}).begin()
    fleet.asks(1)
    fleet.decide()
    assert fleet.decide(after=AGED) == []


def test_a_wish_that_vanishes_is_dropped():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.asks(1, None)
    assert fleet.decide() == []


def test_a_wish_that_vanishes_when_the_replacement_has_started_is_fulfilled_for_its_reason():
    fleet = Fleet().begin()
    fleet.asks(1, Reason.backend)
    fleet.decide()
    fleet.asks(1, None)
    fleet.is_ready(3)
    assert fleet.decide() == [Drain(1, Reason.backend, retires_first=False)]


def test_a_worker_younger_than_min_lifetime_is_not_replaced():
    fleet = Fleet(rules={"min_lifetime": 5.0})
    fleet.decide()
    fleet.now = 100.0
    fleet.is_ready(1, 2)
    fleet.asks(1, Reason.manual)
    assert fleet.decide(after=4.9) == []
    assert starts(fleet.decide(after=0.1)) == [0]


def test_a_replacement_that_fails_leaves_the_old_one_and_comes_again_after_a_wait():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.decide()
    waits = []
    for _ in range(8):
        fleet.ends(fleet.newest)
        begun = fleet.now
        while not starts(fleet.decide()):
            fleet.now += 0.5
        waits.append(fleet.now - begun)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert fleet.drains == []


def test_while_one_replacement_waits_after_a_failure_another_worker_is_replaced():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.decide()
    fleet.ends(3)
    fleet.decide(after=1.0)
    fleet.ends(4)  # waits 2 s now
    fleet.asks(2)
    assert fleet.decide(after=1.0) == [Start(1, 2, Reason.requests)]


def test_when_the_old_one_crashes_its_replacement_takes_the_number_over():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.decide()
    fleet.ends(1)
    assert fleet.decide(after=1.0) == []
    fleet.is_ready(3)
    assert fleet.decide() == []


def test_when_old_one_and_replacement_crash_the_number_starts_anew():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.decide()
    fleet.ends(1, 3)
    assert starts(fleet.decide(after=2.0)) == [0]


def test_a_replacement_can_be_replaced_when_the_old_one_has_ended():
    fleet = Fleet(wanted=1).begin()
    fleet.asks(1)
    fleet.decide()
    fleet.is_ready(2)
    fleet.decide()
    fleet.asks(2)
    assert fleet.decide(after=AGED) == []
    fleet.ends(1)
    assert fleet.decide() == [Start(0, 2, Reason.requests)]


# --- many replacements ----------------------------------------------------------------------------


def test_the_longest_waiting_is_replaced_first():
    fleet = Fleet(wanted=3).begin()
    for generation in (2, 3, 1):
        fleet.asks(generation)
        fleet.now += 1.0
    order = []
    for _ in range(3):
        [start] = fleet.decide(after=AGED)
        assert isinstance(start, Start)
        order.append(start.number)
        fleet.is_ready(fleet.newest)
        fleet.decide()
        fleet.ends(*fleet.in_state(WorkerState.draining))
    assert order == [1, 2, 0]


def test_a_wish_of_time_zero_is_the_oldest():
    fleet = Fleet().begin()
    fleet.asks(2)
    fleet.asks(1)
    fleet.change(2, asked_at=0.0)
    assert starts(fleet.decide()) == [1]


def test_no_more_than_max_concurrent_are_replaced_at_once():
    fleet = Fleet(wanted=4, rules={"max_concurrent": 2}).begin()
    for generation in range(1, 5):
        fleet.asks(generation)
    assert starts(fleet.decide()) == [0]
    assert starts(fleet.decide(after=AGED)) == [1]
    assert starts(fleet.decide(after=AGED)) == []


def test_a_draining_worker_keeps_its_place_until_it_has_ended():
    fleet = Fleet().begin()
    fleet.asks(1)
    fleet.asks(2)
    fleet.decide()
    fleet.is_ready(3)
    assert [type(action) for action in fleet.decide(after=AGED)] == [Drain]
    fleet.ends(1)
    assert starts(fleet.decide()) == [1]


def test_replacements_start_min_interval_apart():
    fleet = Fleet(wanted=3, rules={"max_concurrent": 3, "min_interval": 2.0}).begin()
    for generation in (1, 2, 3):
        fleet.asks(generation)
    assert [starts(fleet.decide(after=after)) for after in (0.0, 1.9, 0.1, 1.9, 0.1)] == [
        [0],
        [],
        [1],
        [],
        [2],
    ]


def test_without_min_interval_replacements_start_together():
    fleet = Fleet(wanted=3, rules={"max_concurrent": 3, "min_interval": 0.0}).begin()
    for generation in (1, 2, 3):
        fleet.asks(generation)
    assert starts(fleet.decide()) == [0, 1, 2]


def test_a_crashed_worker_does_not_wait_for_min_interval():
    fleet = Fleet(rules={"min_interval": 60.0}).begin()
    fleet.asks(1)
    fleet.decide()
    fleet.ends(2)
    assert starts(fleet.decide()) == [1]


def test_a_worker_that_waits_after_crashes_keeps_its_place():
    fleet = Fleet(wanted=3, rules={"min_interval": 0.0}).begin()
    for _ in range(3):
        fleet.ends(*[one.generation for one in fleet.views.values() if one.number == 0])
        fleet.decide(after=2.0)
        fleet.is_ready(*fleet.in_state(WorkerState.starting))
    fleet.ends(fleet.newest)  # waits 4 s now
    fleet.asks(2)
    fleet.asks(3)
    assert starts(fleet.decide()) == [1]
    assert starts(fleet.decide(after=4.0)) == [0]


# --- retire first ---------------------------------------------------------------------------------


def test_without_overlap_the_old_one_ends_before_the_new_one_starts():
    fleet = Fleet(overlap=False).begin()
    fleet.asks(1)
    assert fleet.decide() == [Drain(1, Reason.requests, retires_first=True)]
    assert fleet.decide(after=AGED) == []
    fleet.ends(1)
    assert fleet.decide() == [Start(0, None, None)]


def test_without_overlap_that_is_told_for_each_worker_once():
    fleet = Fleet(overlap=False).begin()
    fleet.asks(1)
    fleet.decide()
    fleet.decide(after=AGED)
    assert fleet.texts("retire_first") == [
        "worker 0 ends before its replacement starts (requests): overlap=False"
    ]


def test_a_single_worker_without_overlap_is_replaced_too():
    fleet = Fleet(wanted=1, overlap=False).begin()
    fleet.asks(1)
    assert fleet.decide() == [Drain(1, Reason.requests, retires_first=True)]


def test_one_at_a_time_retires_first_while_all_others_serve():
    fleet = Fleet(wanted=3, overlap=False, rules={"max_concurrent": 3}).begin()
    for generation in (1, 2, 3):
        fleet.asks(generation)
    assert len(fleet.decide()) == 1
    assert fleet.decide(after=AGED) == []
    fleet.ends(1)
    assert starts(fleet.decide(after=AGED)) == [0]
    assert fleet.decide(after=AGED) == []
    fleet.is_ready(fleet.newest)
    assert fleet.decide() == [Drain(2, Reason.requests, retires_first=True)]


def test_nobody_retires_first_while_another_one_drains():
    fleet = Fleet(wanted=3, overlap=False, rules={"max_concurrent": 2}).begin()
    fleet.wanted = 2
    fleet.decide()
    fleet.asks(2)
    assert fleet.decide(after=AGED) == []
    fleet.ends(1)
    assert fleet.decide() == [Drain(2, Reason.requests, retires_first=True)]


def test_no_other_number_starts_for_one_that_retires():
    fleet = Fleet(wanted=3, overlap=False).begin()
    fleet.wanted = 2
    fleet.decide()
    fleet.ends(1)  # 1 and 2 are left
    fleet.asks(2)
    fleet.decide()
    assert fleet.decide(after=1.0) == []
    fleet.ends(2)
    assert starts(fleet.decide()) == [0]


# --- more and fewer -------------------------------------------------------------------------------


def test_more_workers_get_the_lowest_free_numbers():
    fleet = Fleet(wanted=3).begin()
    fleet.wanted = 2
    fleet.decide()
    fleet.ends(1)
    fleet.wanted = 4
    assert starts(fleet.decide()) == [0, 3]


def test_of_fewer_workers_the_oldest_go():
    fleet = Fleet(wanted=3).begin()
    fleet.change(2, started_at=-5.0)
    fleet.wanted = 1
    assert fleet.decide() == [Drain(2, None, False), Drain(1, None, False)]


def test_fewer_workers_are_drained_once():
    fleet = Fleet(wanted=3).begin()
    fleet.wanted = 2
    fleet.decide()
    assert fleet.decide(after=1.0) == []


def test_with_fewer_workers_wanted_the_last_ready_ones_stay():
    fleet = Fleet(wanted=3)
    fleet.decide()
    fleet.is_ready(1)
    fleet.wanted = 1
    assert fleet.decide() == []
    fleet.is_ready(2)
    assert fleet.decide() == [Drain(1, None, False)]


def test_with_fewer_workers_wanted_one_that_is_being_replaced_stays_for_its_replacement():
    fleet = Fleet(wanted=2).begin()
    fleet.asks(1)
    fleet.decide()
    fleet.wanted = 1
    assert fleet.decide() == [Drain(2, None, False)]
    fleet.is_ready(3)
    assert fleet.decide() == [Drain(1, Reason.requests, False)]


def test_with_fewer_workers_wanted_one_that_is_missing_is_not_started():
    fleet = Fleet(wanted=3).begin()
    fleet.wanted = 2
    fleet.ends(3)
    assert fleet.decide() == []


def test_never_more_processes_than_wanted_and_max_concurrent_whatever_drains():
    fleet = Fleet(wanted=4).begin()
    fleet.wanted = 1
    fleet.decide()
    fleet.wanted = 4
    assert len(starts(fleet.decide())) == 1
    fleet.ends(*fleet.in_state(WorkerState.draining))
    assert len(starts(fleet.decide())) == 2


# --- dry run, storms ------------------------------------------------------------------------------


def test_a_dry_run_tells_once_what_would_be_replaced_and_replaces_nothing():
    fleet = Fleet(rules={"dry_run": True}).begin()
    fleet.asks(2, Reason.lifetime)
    assert fleet.decide() == []
    assert fleet.decide(after=AGED) == []
    assert fleet.texts("dry_run") == ["worker 1 would be replaced: lifetime (dry run)"]


def test_a_dry_run_tells_of_another_reason_too():
    fleet = Fleet(rules={"dry_run": True}).begin()
    for reason in (Reason.lifetime, Reason.leak):
        fleet.asks(1, reason)
        fleet.decide()
    assert len(fleet.texts("dry_run")) == 2


def test_a_dry_run_starts_what_crashed_and_follows_what_is_wanted():
    fleet = Fleet(rules={"dry_run": True}).begin()
    fleet.ends(1)
    assert starts(fleet.decide()) == [0]
    fleet.is_ready(3)
    fleet.wanted = 1
    assert fleet.decide() == [Drain(2, None, False)]


@pytest.mark.parametrize("wanted", [1, 2])
def test_more_than_three_replacements_a_worker_in_a_quarter_of_an_hour_are_told_once(wanted):
    fleet = Fleet(wanted=wanted, rules={"min_lifetime": 0.0}).begin()
    generation = fleet.newest
    told = []
    for _ in range(3 * wanted + 3):
        generation = fleet.recycle(generation, after=1.0)
        told.append(len(fleet.texts("recycle_storm")))
    assert told == [0] * (3 * wanted) + [1] * 3
    assert fleet.texts("recycle_storm") == [
        f"more than {3 * wanted} replacements were begun within 15 minutes: is a limit too low, "
        "or do new workers fail?"
    ]


def test_a_storm_that_goes_on_is_told_again_after_a_quarter_of_an_hour():
    fleet = Fleet(wanted=1).begin()
    generation, told_at = 1, []
    for _ in range(30):
        generation = fleet.recycle(generation)  # 101 s
        told_at += [fleet.now] * (len(fleet.texts("recycle_storm")) - len(told_at))
    assert len(told_at) >= 3
    assert all(901 < after - before < 1100 for before, after in itertools.pairwise(told_at))


def test_replacements_that_are_far_apart_are_no_storm():
    fleet = Fleet(wanted=1).begin()
    generation = 1
    for _ in range(10):
        generation = fleet.recycle(generation, after=400.0)
    assert fleet.texts("recycle_storm") == []
