"""What the supervisor does next where memory is the reason, or is what lacks."""

from __future__ import annotations

import pytest

from memguard_native.recycling.planner import Drain, Group, Start
from memguard_native.recycling.reasons import MEMORY_REASONS, Reason

from .fleet import AGED, MIB, Fleet, starts

# --- room for a second one ------------------------------------------------------------------------


def crowded(*, wanted: int = 2, free: float = 109.0, own: int | None = 100) -> Fleet:
    """Workers with `own` MiB each when they became ready, and `free` MiB left for all."""
    fleet = Fleet(wanted=wanted).begin(own_bytes=None if own is None else own * MIB)
    fleet.group = Group(int((1000 - free) * MIB), 1000 * MIB)
    fleet.asks(1)
    return fleet


def test_with_needed_a_tenth_more_than_its_baseline_the_replacement_starts_first():
    assert crowded(free=110.1).decide() == [Start(0, 1, Reason.requests)]


def test_without_room_one_of_many_ends_first_and_that_is_told():
    fleet = crowded()
    assert fleet.decide() == [Drain(1, Reason.requests, retires_first=True)]
    assert fleet.texts("retire_first") == [
        "worker 0 ends before its replacement starts (requests): there is no room for both"
    ]


def test_the_one_that_ended_for_room_starts_when_its_process_is_gone():
    fleet = crowded()
    fleet.decide()
    assert fleet.decide(after=AGED) == []
    fleet.ends(1)
    assert fleet.decide() == [Start(0, None, None)]


def test_without_room_a_single_worker_waits_and_that_is_told_once():
    fleet = crowded(wanted=1)
    assert fleet.decide() == []
    assert fleet.decide(after=AGED) == []
    assert fleet.texts("no_room") == [
        "worker 0 waits (requests): there is no room for a second one"
    ]


def test_a_single_worker_that_waited_is_replaced_once_there_is_room():
    fleet = crowded(wanted=1)
    fleet.decide()
    fleet.group = Group(0, 1000 * MIB)
    assert fleet.decide() == [Start(0, 1, Reason.requests)]


def test_without_room_nobody_ends_first_while_another_one_is_missing():
    fleet = crowded(wanted=3)
    fleet.ends(3)
    assert starts(fleet.decide()) == [2]
    assert fleet.decide(after=AGED) == []
    fleet.is_ready(fleet.newest)
    assert fleet.decide() == [Drain(1, Reason.requests, retires_first=True)]


@pytest.mark.parametrize("group", [Group(None, None), Group(MIB, None), Group(None, MIB)])
def test_where_room_is_not_known_there_is_room(group):
    fleet = crowded()
    fleet.group = group
    assert starts(fleet.decide()) == [0]


def test_where_the_baseline_is_not_known_there_is_room():
    assert starts(crowded(own=None).decide()) == [0]


# --- memory of all together -----------------------------------------------------------------------

GROUP_LIMIT = 1000 * MIB


def grown(**rules: object) -> Fleet:
    """Three workers of which 2 has grown most; all together are over their limit."""
    fleet = Fleet(wanted=3, rules={"max_group_memory": GROUP_LIMIT, **rules}).begin(own_bytes=MIB)
    for generation, own in ((1, 5), (2, 90), (3, 7)):
        fleet.change(generation, own_bytes=own * MIB)
    fleet.group = Group(GROUP_LIMIT + 1, None)
    return fleet


def test_the_worker_with_most_growth_goes_when_all_together_stay_over_their_limit():
    fleet = grown()
    assert [starts(fleet.decide(after=10.0)) for _ in range(3)] == [[], [], [1]]
    assert fleet.starts == [Start(1, 2, Reason.group)]


def test_decisions_within_sample_interval_are_one_sample():
    fleet = grown()
    # The first of 161 decisions, the 81st and the last are 10 s apart.
    assert [starts(fleet.decide(after=0.125)) for _ in range(160)] == [[]] * 160
    assert starts(fleet.decide(after=0.125)) == [1]


def test_a_spike_of_all_together_replaces_nobody():
    fleet = grown()
    for above in (True, True, False) * 5:
        fleet.group = Group(GROUP_LIMIT + 1 if above else GROUP_LIMIT, None)
        assert fleet.decide(after=10.0) == []


def test_growth_is_counted_from_when_the_worker_became_ready():
    fleet = grown()
    fleet.change(2, ready_bytes=89 * MIB)
    for _ in range(3):
        fleet.decide(after=10.0)
    assert fleet.starts == [Start(2, 3, Reason.group)]


def test_the_one_chosen_for_all_together_waits_from_then_on():
    fleet = grown(min_lifetime=1000.0)
    for _ in range(3):
        fleet.decide(after=10.0)
    fleet.now += 1.0
    fleet.asks(1)
    fleet.asks(3)
    assert starts(fleet.decide(after=1000.0)) == [1]


def test_the_choice_is_dropped_when_all_together_are_all_right_again():
    fleet = grown(min_lifetime=1000.0)
    for _ in range(3):
        fleet.decide(after=10.0)
    fleet.group = Group(GROUP_LIMIT * 9 // 10 - 1, None)
    assert fleet.decide(after=1000.0) == []


def test_a_limit_of_a_worker_that_is_too_low_does_not_keep_it_from_going_for_all_together():
    fleet = grown(max_memory=MIB // 2)
    fleet.asks(2, Reason.memory)  # held back: it was over that limit from the start
    for _ in range(3):
        fleet.decide(after=10.0)
    assert fleet.starts == [Start(1, 2, Reason.group)]


def test_a_worker_that_asks_itself_is_replaced_for_its_own_reason():
    fleet = grown()
    fleet.decide(after=10.0)
    fleet.decide(after=10.0)
    fleet.asks(2, Reason.lifetime)
    assert fleet.decide(after=10.0) == [Start(1, 2, Reason.lifetime)]


# --- what does not help ---------------------------------------------------------------------------


def test_a_worker_that_is_over_max_memory_from_the_start_is_not_replaced_for_that():
    fleet = Fleet(wanted=2, rules={"max_memory": 100 * MIB}).begin(own_bytes=150 * MIB)
    fleet.asks(1, Reason.memory)
    assert fleet.decide() == []
    assert fleet.decide(after=AGED) == []
    assert fleet.texts("baseline_over_limit") == [
        f"worker {number} has 150 MiB of its own when it is ready: max_memory, 100 MiB, is too "
        "low, and it is not replaced for that"
        for number in (0, 1)
    ]


def test_a_worker_that_is_over_max_memory_from_the_start_is_replaced_for_other_reasons():
    fleet = Fleet(wanted=1, rules={"max_memory": 100 * MIB}).begin(own_bytes=150 * MIB)
    fleet.asks(1, Reason.requests)
    assert starts(fleet.decide()) == [0]


def test_a_worker_that_has_grown_over_max_memory_is_replaced():
    fleet = Fleet(wanted=1, rules={"max_memory": 100 * MIB}).begin(own_bytes=100 * MIB)
    fleet.asks(1, Reason.memory)
    assert starts(fleet.decide()) == [0]
    assert fleet.notes == []


def budgeted(reason: Reason) -> Fleet:
    """Of two replacements for memory an hour both have been."""
    fleet = Fleet(wanted=1, rules={"max_memory_recycles_per_hour": 2}).begin()
    fleet.recycle(fleet.recycle(1, reason), reason)
    return fleet


@pytest.mark.parametrize("reason", sorted(MEMORY_REASONS))
def test_more_replacements_for_memory_in_an_hour_than_allowed_are_only_told_once(reason):
    fleet = budgeted(reason)
    fleet.asks(3, reason)
    assert fleet.decide(after=AGED) == []
    assert fleet.decide(after=AGED) == []
    assert fleet.texts("memory_recycles") == [
        f"worker 0 stays ({reason}): 2 were replaced for memory within an hour, and it does not "
        "help; the limit is too low, or start-up itself leaks"
    ]


def test_an_hour_later_a_worker_is_replaced_for_memory_again():
    fleet = budgeted(Reason.leak)
    fleet.asks(3, Reason.leak)
    first = AGED + AGED  # begin() and recycle() have let that pass
    assert fleet.decide(after=first + 3600.0 - fleet.now) == []
    assert starts(fleet.decide(after=0.1)) == [0]


@pytest.mark.parametrize("reason", sorted(set(Reason) - MEMORY_REASONS))
def test_other_reasons_do_not_count_as_replacements_for_memory(reason):
    fleet = budgeted(Reason.leak)
    fleet.asks(3, reason)
    assert starts(fleet.decide(after=AGED)) == [0]
    assert fleet.texts("memory_recycles") == []


def test_memory_that_is_back_within_ten_minutes_of_a_replacement_for_it_is_told():
    fleet = Fleet(wanted=1).begin()
    fleet.recycle(fleet.recycle(1, Reason.leak), Reason.memory, after=500.0)
    assert fleet.texts("recycling_does_not_help") == [
        "replacing worker 0 does not help: memory again, 501 s after it was ready"
    ]


def test_memory_that_is_back_after_more_than_ten_minutes_is_not_told():
    fleet = Fleet(wanted=1).begin()
    fleet.recycle(fleet.recycle(1, Reason.leak), Reason.leak, after=600.0)
    assert fleet.texts("recycling_does_not_help") == []


def test_memory_after_a_replacement_for_another_reason_is_no_sign_that_it_does_not_help():
    fleet = Fleet(wanted=1).begin()
    generation = 1
    for reason in (Reason.leak, Reason.requests, Reason.leak):
        generation = fleet.recycle(generation, reason)
    assert fleet.texts("recycling_does_not_help") == []


def test_room_for_one_is_not_given_to_two_replacements_of_one_decision():
    fleet = Fleet(rules={"max_concurrent": 2, "min_interval": 0.0}).begin(own_bytes=100 * MIB)
    fleet.group = Group(880 * MIB, 1000 * MIB)
    fleet.asks(1)
    fleet.asks(2)
    assert fleet.decide() == [Start(0, 1, Reason.requests)]


def test_room_that_a_starting_worker_will_take_is_not_given_to_another():
    fleet = Fleet(rules={"max_concurrent": 2}).begin(own_bytes=100 * MIB)
    fleet.asks(1)
    fleet.asks(2)
    fleet.group = Group(781 * MIB, 1000 * MIB)
    assert fleet.decide() == [Start(0, 1, Reason.requests)]
    assert fleet.decide(after=10.0) == []
    fleet.group = Group(779 * MIB, 1000 * MIB)  # a tenth more than two will have
    assert fleet.decide() == [Start(1, 2, Reason.requests)]
