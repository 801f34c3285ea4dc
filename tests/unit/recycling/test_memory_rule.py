"""When the own memory of one worker is too much."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from memguard_native.recycling.memory_rule import MemoryRule, MemoryStep

MAX, REARM = 1000, 900
NOTHING, CONFIRM, TRIM, RECYCLE, VANISHED = (
    MemoryStep.nothing,
    MemoryStep.confirm,
    MemoryStep.trim,
    MemoryStep.recycle,
    MemoryStep.vanished,
)


def new_rule(*, confirm_samples: int = 3, trim_first: bool = True) -> MemoryRule:
    return MemoryRule(
        MAX, confirm_samples=confirm_samples, hysteresis=REARM / MAX, trim_first=trim_first
    )


@pytest.fixture
def rule() -> MemoryRule:
    return new_rule()


def steps(rule: MemoryRule, *samples: int) -> list[MemoryStep]:
    return [rule.sampled(sample) for sample in samples]


def ask(rule: MemoryRule) -> None:
    """It is over its limit, and trimming does not help."""
    assert steps(rule, 1001, 1001, 1001)[-1] is CONFIRM
    assert rule.confirmed(1001) is TRIM
    assert rule.trimmed(1001) is RECYCLE


def test_samples_above_in_a_row_have_memory_looked_at_exactly(rule):
    assert steps(rule, 1001, 1001, 1001) == [NOTHING, NOTHING, CONFIRM]


def test_one_sample_decides_nothing(rule):
    assert rule.sampled(10**9) is NOTHING


def test_a_spike_begins_the_row_again(rule):
    assert set(steps(rule, 2000, 2000, 1000, 2000, 2000, 1000)) == {NOTHING}


def test_the_limit_itself_is_allowed(rule):
    assert set(steps(rule, *[MAX] * 10)) == {NOTHING}
    assert rule.confirmed(MAX) is NOTHING


def test_what_is_not_confirmed_begins_the_row_again(rule):
    steps(rule, 1001, 1001, 1001)
    assert rule.confirmed(999) is NOTHING
    assert steps(rule, 1001, 1001, 1001) == [NOTHING, NOTHING, CONFIRM]


def test_a_trim_is_tried_first(rule):
    assert rule.confirmed(1001) is TRIM


def test_a_trim_is_not_tried_where_it_is_not_wanted():
    assert new_rule(trim_first=False).confirmed(1001) is RECYCLE


def test_where_a_trim_helps_nobody_is_replaced(rule):
    rule.confirmed(1500)
    assert rule.trimmed(500) is NOTHING
    assert steps(rule, 1001, 1001, 1001)[-1] is CONFIRM
    assert rule.confirmed(1001) is TRIM


def test_a_trim_that_does_not_help_leads_to_a_recycle(rule):
    rule.confirmed(1500)
    assert rule.trimmed(1001) is RECYCLE


def test_a_trim_that_helped_too_little_is_not_tried_again(rule):
    rule.confirmed(1500)
    assert rule.trimmed(950) is NOTHING
    assert steps(rule, 1001, 1001, 1001)[-1] is CONFIRM
    assert rule.confirmed(1001) is RECYCLE


def test_a_trim_that_helped_too_little_is_tried_again_once_memory_was_all_right(rule):
    rule.confirmed(1500)
    rule.trimmed(950)
    rule.sampled(899)
    assert rule.confirmed(1001) is TRIM


def test_without_trim_first_memory_that_was_all_right_does_not_bring_a_trim():
    rule = new_rule(trim_first=False)
    rule.sampled(899)
    assert rule.confirmed(1001) is RECYCLE


def test_a_recycle_is_asked_for_once(rule):
    ask(rule)
    assert set(steps(rule, *[2000] * 10)) == {NOTHING}


def test_the_wish_is_withdrawn_below_the_hysteresis(rule):
    ask(rule)
    assert steps(rule, 999, 900, 899) == [NOTHING, NOTHING, VANISHED]


def test_a_wish_is_withdrawn_once(rule):
    ask(rule)
    assert steps(rule, 899, 899) == [VANISHED, NOTHING]


def test_after_a_withdrawal_the_row_begins_again(rule):
    ask(rule)
    assert steps(rule, 500, 1001, 1001, 1001) == [VANISHED, NOTHING, NOTHING, CONFIRM]


def test_one_sample_can_be_enough_where_that_is_configured():
    assert new_rule(confirm_samples=1).sampled(1001) is CONFIRM


# --- properties -----------------------------------------------------------------------------------


def decisions(rule: MemoryRule, samples: list[int]) -> list[MemoryStep]:
    """What is decided where exact figures are those of the samples and trimming never helps."""
    found = []
    for sample in samples:
        step = rule.sampled(sample)
        if step is CONFIRM:
            step = rule.confirmed(sample)
        if step is TRIM:
            step = rule.trimmed(sample)
        if step is not NOTHING:
            found.append(step)
    return found


@given(st.lists(st.integers(REARM, 1100), max_size=200), st.booleans())
def test_noise_around_the_limit_asks_once_at_most_and_withdraws_never(samples, trim_first):
    assert decisions(new_rule(trim_first=trim_first), samples) in ([], [RECYCLE])


@given(st.lists(st.integers(0, 2000), max_size=200))
def test_wish_and_withdrawal_alternate(samples):
    found = decisions(new_rule(), samples)
    assert found == [RECYCLE, VANISHED] * (len(found) // 2) + [RECYCLE] * (len(found) % 2)


@given(st.lists(st.tuples(st.integers(1001, 10**9), st.integers(1, 2), st.integers(1, 3))))
def test_spikes_shorter_than_the_row_never_recycle(spikes):
    rule = new_rule()
    for height, length, rest in spikes:
        assert decisions(rule, [height] * length + [500] * rest) == []
