"""States set by hand outrank the rules: forced open, disabled, and the way back."""

from __future__ import annotations

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, ConfigError, State

from .calls import Boom, admitted, fail, fail_times, succeed


def test_forced_open_rejects_until_it_is_given_back(breaker, clock):
    breaker.force_open()
    clock.advance(1e6)
    assert breaker.state is State.forced_open
    with pytest.raises(CircuitOpenError, match="is forced open by hand; try again in") as caught:
        breaker.call(succeed)
    assert (caught.value.reason, caught.value.state) == ("forced_open", "forced_open")
    assert caught.value.retry_after == 300.0
    breaker.auto()
    assert breaker.state is State.half_open
    assert admitted(breaker)
    assert breaker.state is State.closed


def test_forced_open_for_a_time_ends_with_a_probe(breaker, clock):
    breaker.force_open(30.0)
    assert breaker.retry_after == pytest.approx(30.0, abs=0.002)
    clock.advance(30.001)
    assert breaker.state is State.half_open
    with pytest.raises(Boom):
        breaker.call(fail)
    assert breaker.state is State.open


def test_disabled_runs_every_call_and_counts_none(breaker):
    fail_times(breaker, 4)
    breaker.disable()
    fail_times(breaker, 20)
    assert breaker.state is State.disabled
    breaker.auto()
    assert (breaker.state, breaker.failure_count) == (State.closed, 0)


def test_disabled_for_a_time_ends_closed(breaker, clock):
    breaker.trip()
    breaker.disable(10.0)
    assert admitted(breaker)
    clock.advance(10.001)
    assert breaker.state is State.closed
    fail_times(breaker, 5)
    assert breaker.state is State.open


@pytest.mark.parametrize("state", [State.forced_open, State.disabled])
def test_a_trip_does_not_end_what_was_set_by_hand_and_a_reset_does(breaker, state):
    if state is State.forced_open:
        breaker.force_open()
    else:
        breaker.disable()
    breaker.trip()
    assert breaker.state is state
    breaker.reset()
    assert breaker.state is State.closed


def test_results_of_calls_that_ran_meanwhile_are_stale(breaker):
    running = [breaker.attempt() for _ in range(2)]
    breaker.force_open()
    running[0].failure()
    breaker.reset()
    running[1].failure()
    assert breaker.failure_count == 0


def test_auto_changes_nothing_else(breaker):
    fail_times(breaker, 3)
    breaker.auto()
    assert (breaker.state, breaker.failure_count) == (State.closed, 3)
    breaker.trip()
    breaker.auto()
    assert breaker.state is State.open


def test_a_trip_may_say_for_how_long(breaker):
    breaker.trip(retry_after=7.5)
    assert breaker.retry_after == pytest.approx(7.5, abs=0.002)


def test_a_manual_trip_is_told_as_such(breaker):
    breaker.trip()
    with pytest.raises(CircuitOpenError, match="opened by hand"):
        breaker.call(succeed)


def test_a_reason_given_by_hand_is_told_by_errors_and_events(clock):
    told = []
    breaker = CircuitBreaker("why", clock=clock, on_event=told.append, inline_events=True)
    breaker.force_open(reason="maintenance")
    with pytest.raises(CircuitOpenError, match=r"forced open by hand \(maintenance\)") as caught:
        breaker.call(succeed)
    assert caught.value.detail == "maintenance"
    breaker.disable(reason="drill")
    breaker.auto()
    breaker.trip(reason="bad deploy")
    assert [one.detail for one in told] == ["maintenance", "drill", None, "bad deploy"]
    assert breaker.snapshot().detail == "bad deploy"


@pytest.mark.parametrize("method", ["trip", "force_open", "disable"])
def test_a_reason_that_is_no_text_is_refused(breaker, method):
    with pytest.raises(ConfigError, match="reason"):
        getattr(breaker, method)(reason=3)
    assert breaker.state is State.closed
