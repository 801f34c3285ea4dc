"""`snapshot()`: what is known of a breaker, told without costing its callers anything."""

from __future__ import annotations

import json
import pickle

import pytest

from memguard_native import CircuitBreaker

from .calls import admitted, fail_times


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
