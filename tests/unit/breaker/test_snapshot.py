"""`snapshot()`: what is known of a breaker, told without costing its callers anything."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest

from memguard_native import CircuitBreaker

from .calls import admitted, fail_times, succeed


def test_a_new_breaker_has_counted_nothing(breaker):
    found = breaker.snapshot()
    assert (found.name, found.state, found.generation) == ("search", "closed", 0)
    assert (found.opened_at, found.last_error, found.retry_after) == (None, None, 0.0)
    assert (found.failures, found.rejections, found.transitions) == (0, 0, 0)


def test_counters_tell_what_happened_also_between_two_looks(breaker, clock):
    fail_times(breaker, 5)
    assert not admitted(breaker)
    assert not admitted(breaker)
    clock.advance(60)
    assert admitted(breaker)
    found = breaker.snapshot()
    assert (found.state, found.failure_count) == ("closed", 0)
    assert (found.failures, found.rejections, found.transitions) == (5, 2, 3)
    assert found.last_error == ("Boom", "no answer")
    assert found.opened_at is not None


def test_stale_results_are_counted(breaker):
    running = breaker.attempt()
    breaker.trip()
    running.failure()
    found = breaker.snapshot()
    assert (found.stale, found.failures, found.neutrals) == (1, 1, 0)


def test_a_rejected_call_inside_a_probe_is_no_rejection(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    breaker.call(breaker.call, len, "nested")
    assert breaker.snapshot().rejections == 0


def test_probes_show_while_half_open(clock):
    breaker = CircuitBreaker("b", 1, clock=clock, success_threshold=3, half_open_max=2)
    fail_times(breaker, 1)
    clock.advance(60)
    breaker.attempt().success()
    running = breaker.attempt()
    found = breaker.snapshot()
    assert (found.probes_in_flight, found.probe_successes) == (1, 1)
    running.neutral()
    assert breaker.snapshot().neutrals == 1


def test_the_state_of_a_due_circuit_is_what_a_call_would_meet(breaker, clock):
    breaker.trip()
    assert breaker.snapshot().retry_after == pytest.approx(60.0, abs=0.002)
    clock.advance(60)
    found = breaker.snapshot()
    assert (found.state, found.retry_after) == ("half_open", 0.0)


def test_a_snapshot_is_immutable_picklable_and_ready_for_json(breaker):
    breaker.trip()
    found = breaker.snapshot()
    with pytest.raises(AttributeError):
        found.state = "closed"
    assert pickle.loads(pickle.dumps(found)) == found
    assert json.loads(json.dumps(found.to_dict()))["schema"] == 1


# --- R20: metrics that are counters, so that nothing between two looks is missed ------------------


def test_transitions_between_two_looks_are_counted_by_kind(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    assert admitted(breaker)
    breaker.trip()
    breaker.reset()
    assert breaker.snapshot().transitions_by_kind == {
        "closed->open": 2,
        "half_open->closed": 1,
        "open->closed": 1,
        "open->half_open": 1,
    }


def test_the_time_spent_open_is_counted(breaker, clock):
    breaker.trip()
    clock.advance(10)
    breaker.reset()
    clock.advance(100)
    breaker.force_open()
    clock.advance(5)
    assert breaker.snapshot().open_seconds == pytest.approx(15)
    clock.advance(1)
    assert breaker.snapshot().open_seconds == pytest.approx(16)


def test_every_way_in_which_calls_end_is_counted(clock):
    breaker = CircuitBreaker(
        "all", None, clock=clock, slow_rate=1.0, slow_call_duration=5.0, ignore=KeyError
    )
    guarded = breaker(succeed)
    guarded()
    guarded()
    fail_times(breaker, 1)
    with pytest.raises(KeyError):
        breaker.call({}.__getitem__, "x")
    slow = breaker.attempt()
    clock.advance(5)
    slow.success()
    late = breaker.attempt()
    breaker.reset()
    late.success()

    async def cancelled():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(breaker(cancelled)())
    found = breaker.snapshot()
    assert (found.successes, found.failures, found.neutrals) == (4, 1, 2)
    assert (found.slow, found.cancelled, found.stale) == (1, 1, 1)


def test_probes_count_as_successes_too(clock):
    breaker = CircuitBreaker("probes", 1, clock=clock, count_calls=True)
    fail_times(breaker, 1)
    clock.advance(60)
    assert admitted(breaker)
    assert admitted(breaker)
    assert breaker.snapshot().successes == 2


def test_successes_are_unknown_where_they_are_not_counted(breaker):
    assert admitted(breaker)
    assert breaker.snapshot().successes is None


@pytest.mark.parametrize(
    ("rules", "counted"),
    [
        ({}, False),
        ({"failure_rate": 0.5}, True),
        ({"trip_if": lambda snapshot: None}, True),
        ({"failure_rate": 0.5, "count_calls": True}, True),
        ({"count_calls": True}, True),
    ],
)
def test_calls_are_counted_where_a_rule_needs_it(rules, counted):
    breaker = CircuitBreaker("counted", **rules)
    assert breaker.config.counts_calls is counted
    assert (breaker.snapshot().successes is not None) is counted
