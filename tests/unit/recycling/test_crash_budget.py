"""How long to wait before a worker is started again, and when to give up."""

from __future__ import annotations

import pytest

from memguard_native.recycling.crash_budget import CrashBudget


@pytest.fixture
def budget() -> CrashBudget:
    return CrashBudget()


def wait_after(budget: CrashBudget, number: int = 0, *, was_ready: bool, age: float) -> float:
    """Seconds from its end until it may be started."""
    now = 1000.0
    budget.crashed(number, now, was_ready=was_ready, age=age)
    waits = [0.0, *(2.0**power for power in range(6)), 60.0]
    found = next(wait for wait in waits if budget.may_start(number, now + wait))
    assert found == 0.0 or not budget.may_start(number, now + found - 0.001)
    return found


def test_a_number_that_never_failed_may_start(budget):
    assert budget.may_start(3, 0.0)


def test_after_its_first_crash_a_worker_starts_at_once(budget):
    assert wait_after(budget, was_ready=True, age=5.0) == 0.0


def test_from_the_second_early_crash_on_it_waits_1_2_4_up_to_60_seconds(budget):
    waits = [wait_after(budget, was_ready=True, age=5.0) for _ in range(10)]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_one_that_never_became_ready_waits_from_the_first_time_on(budget):
    waits = [wait_after(budget, was_ready=False, age=300.0) for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_crash_and_a_failed_start_are_of_one_row(budget):
    waits = [
        wait_after(budget, was_ready=was_ready, age=1.0) for was_ready in (True, False, True, False)
    ]
    assert waits == [0, 1, 2, 4]


def test_a_crash_after_a_minute_of_service_begins_a_new_row(budget):
    for _ in range(5):
        wait_after(budget, was_ready=True, age=59.9)
    assert wait_after(budget, was_ready=True, age=60.0) == 0.0
    assert wait_after(budget, was_ready=True, age=1.0) == 1.0


def test_numbers_wait_each_for_itself(budget):
    for _ in range(5):
        wait_after(budget, 0, was_ready=False, age=1.0)
    assert budget.may_start(1, 1000.0)
    assert wait_after(budget, 1, was_ready=False, age=1.0) == 1.0


def test_a_worker_that_ends_as_it_was_told_to_ends_the_row(budget):
    for _ in range(5):
        wait_after(budget, was_ready=False, age=1.0)
    budget.forget(0)
    assert budget.may_start(0, 1000.0)
    assert wait_after(budget, was_ready=True, age=1.0) == 0.0


def test_forgetting_what_never_failed_does_nothing(budget):
    budget.forget(5)
    assert budget.may_start(5, 0.0)


# --- giving up ------------------------------------------------------------------------------------


def fail(budget: CrashBudget, times: int, *, at: float = 0.0, apart: float = 1.0) -> float:
    for index in range(times):
        budget.crashed(index % 4, at + index * apart, was_ready=False, age=1.0)
    return at + (times - 1) * apart


def test_more_than_ten_ends_within_ten_minutes_without_a_ready_worker_are_hopeless(budget):
    now = fail(budget, 10)
    assert not budget.is_spent(now, is_any_ready=False)
    fail(budget, 1, at=now)
    assert budget.is_spent(now, is_any_ready=False)


def test_ends_of_ten_minutes_ago_do_not_count(budget):
    fail(budget, 11, apart=60.0)
    assert budget.is_spent(600.0, is_any_ready=False)
    assert not budget.is_spent(600.1, is_any_ready=False)


def test_a_single_worker_that_never_starts_is_given_up_within_ten_minutes(budget):
    now = 0.0
    while not budget.is_spent(now, is_any_ready=False):
        budget.crashed(0, now, was_ready=False, age=1.0)
        while not budget.may_start(0, now):
            now += 1.0
    assert now < 600.0


def test_as_long_as_a_worker_is_ready_nothing_is_hopeless(budget):
    now = fail(budget, 100)
    assert not budget.is_spent(now, is_any_ready=True)


def test_ends_before_a_worker_was_ready_do_not_count(budget):
    now = fail(budget, 10)
    budget.is_spent(now, is_any_ready=True)
    now = fail(budget, 10, at=now)
    assert not budget.is_spent(now, is_any_ready=False)
