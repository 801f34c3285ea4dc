"""The user's own formula for open periods, and failures that belong to one incident."""

from __future__ import annotations

import logging

import pytest

from memguard_native import CircuitBreaker, ConfigError, State

from .calls import Boom, admitted, fail, fail_times


def reopen(breaker, clock):
    """Lets the open period end, and the probe fail."""
    clock.advance(breaker.retry_after + 0.001)
    fail_times(breaker, 1)


# --- backoff --------------------------------------------------------------------------------------


def test_backoff_replaces_the_formula_and_is_told_attempt_and_outcome(clock):
    asked = []

    def backoff(attempt, outcome):
        asked.append((attempt, outcome))
        return 5.0 * (attempt + 1)

    breaker = CircuitBreaker("backoff", 1, clock=clock, jitter=1.0, backoff=backoff)
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(5, abs=0.002)
    reopen(breaker, clock)
    assert breaker.retry_after == pytest.approx(10, abs=0.002)
    reopen(breaker, clock)
    assert breaker.retry_after == pytest.approx(15, abs=0.002)
    assert [attempt for attempt, _ in asked] == [0, 1, 2]
    assert all(isinstance(outcome, Boom) for _, outcome in asked)


def test_backoff_starts_over_after_a_closing(clock):
    breaker = CircuitBreaker("backoff", 1, clock=clock, backoff=lambda n, outcome: 7 + n)
    fail_times(breaker, 1)
    reopen(breaker, clock)
    assert breaker.retry_after == pytest.approx(8, abs=0.002)
    clock.advance(8.001)
    assert admitted(breaker)
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(7, abs=0.002)


def test_backoff_is_not_asked_for_failures_that_open_nothing(clock):
    asked = []
    breaker = CircuitBreaker("backoff", 3, clock=clock, backoff=lambda *given: asked.append(given))
    fail_times(breaker, 2)
    assert asked == []
    fail_times(breaker, 1)
    assert len(asked) == 1
    assert breaker.retry_after == pytest.approx(60, abs=0.002)


def test_backoff_is_clipped_to_the_longest_wait(clock):
    breaker = CircuitBreaker("backoff", 1, clock=clock, backoff=lambda *given: 1e9)
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(300, abs=0.002)


@pytest.mark.parametrize("answer", [None, -1.0, float("nan"), "soon"])
def test_backoff_that_gives_no_seconds_leaves_the_formula(clock, answer):
    breaker = CircuitBreaker("backoff", 1, clock=clock, backoff=lambda *given: answer)
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(60, abs=0.002)


def test_backoff_that_raises_is_logged_once_and_leaves_the_formula(clock, caplog):
    breaker = CircuitBreaker("backoff", 1, clock=clock, backoff=lambda *given: 1 / 0)
    with caplog.at_level(logging.ERROR, "memguard_native.breaker"):
        fail_times(breaker, 1)
        reopen(breaker, clock)
    assert breaker.retry_after == pytest.approx(60, abs=0.002)
    assert len(caplog.records) == 1


def test_what_the_server_told_outranks_backoff(clock):
    breaker = CircuitBreaker(
        "backoff", 1, clock=clock, backoff=lambda *given: 5.0, reopen_after=lambda error: 9.0
    )
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(9, abs=0.002)


def test_backoff_of_a_trip_by_hand_and_of_a_lost_probe_has_no_outcome(clock):
    asked = []

    def backoff(attempt, outcome):
        asked.append((attempt, outcome))
        return 20.0

    breaker = CircuitBreaker("backoff", clock=clock, backoff=backoff, probe_expiry="failure")
    breaker.trip()
    clock.advance(20.001)
    hung = breaker.attempt()
    clock.advance(61)
    assert not admitted(breaker)
    hung.success()
    assert asked[0] == (0, None)
    assert asked[-1] == (1, None)
    assert breaker.snapshot().step == 1


def test_backoff_of_a_result_gets_the_result(clock):
    asked = []
    breaker = CircuitBreaker(
        "backoff",
        1,
        clock=clock,
        failure_if_result=lambda result: result == 503,
        backoff=lambda attempt, outcome: asked.append(outcome),
    )
    assert breaker.call(lambda: 503) == 503
    assert asked == [503]


# --- lump_interval --------------------------------------------------------------------------------


def test_failures_within_the_interval_after_a_counted_one_are_one_incident(clock):
    breaker = CircuitBreaker("lump", 2, clock=clock, lump_interval=1.0)
    fail_times(breaker, 10)
    assert (breaker.failure_count, breaker.snapshot().failures) == (1, 10)
    clock.advance(0.999)
    fail_times(breaker, 1)
    assert breaker.state is State.closed
    clock.advance(0.002)
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_an_incident_counts_once_in_the_rates_too(clock):
    breaker = CircuitBreaker(
        "lump", None, clock=clock, lump_interval=1.0, failure_rate=0.5, count_window=4
    )
    fail_times(breaker, 10)
    assert breaker.snapshot().window_failures == 1


def test_a_probe_that_fails_within_the_interval_opens_all_the_same(clock):
    breaker = CircuitBreaker("lump", 1, 1.0, clock=clock, lump_interval=60.0)
    fail_times(breaker, 1)
    clock.advance(1.001)
    fail_times(breaker, 1)
    assert breaker.snapshot().step == 1


@pytest.mark.parametrize("given", [-1, 0.0001, float("nan"), "1"])
def test_an_interval_out_of_its_range_is_refused(given):
    with pytest.raises(ConfigError, match="lump_interval"):
        CircuitBreaker("lump", lump_interval=given)(fail)
