"""The breaker's rules, one test each, on plain functions and an injected clock."""

from __future__ import annotations

import contextvars
import time

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State

from .calls import Boom, Suspend, admitted, fail, fail_times, succeed


def test_five_failures_in_a_row_open_the_circuit(breaker):
    fail_times(breaker, 4)
    assert breaker.state is State.closed
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_a_success_starts_the_count_over(breaker):
    fail_times(breaker, 4)
    assert admitted(breaker)
    fail_times(breaker, 4)
    assert breaker.state is State.closed


def test_the_caller_gets_its_own_exception_at_the_trip(breaker):
    fail_times(breaker, 4)
    mine = Boom("mine")

    def raise_mine():
        raise mine

    with pytest.raises(Boom) as caught:
        breaker.call(raise_mine)
    assert caught.value is mine
    assert mine.__context__ is None
    assert breaker.state is State.open


def test_an_open_circuit_calls_nothing(breaker):
    fail_times(breaker, 5)
    calls = []
    with pytest.raises(CircuitOpenError):
        breaker.call(calls.append, 1)
    assert calls == []


def test_open_breaker_admits_one_probe_after_the_timeout(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(59.999)
    assert not admitted(breaker)
    clock.advance(0.001)
    outcomes = []

    def probe():
        outcomes.extend(admitted_elsewhere(breaker) for _ in range(3))

    breaker.call(probe)
    assert outcomes == [False, False, False]
    assert breaker.state is State.closed


def admitted_elsewhere(breaker: CircuitBreaker) -> bool:
    """As a caller outside of the probe would see it: in a context of its own."""
    return contextvars.Context().run(admitted, breaker)


def test_reading_the_state_uses_up_no_probe(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    assert {breaker.state for _ in range(100)} == {State.half_open}
    assert breaker.retry_after == 0.0
    assert admitted(breaker)


def test_a_failed_probe_opens_for_a_whole_period_again(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    fail_times(breaker, 1)
    assert breaker.state is State.open
    assert breaker.retry_after == pytest.approx(60.0, abs=0.002)
    assert breaker.failure_count == 6


def test_a_late_success_leaves_an_open_circuit_open(breaker):
    def succeed_late():
        fail_times(breaker, 5)
        return "late"

    assert breaker.call(succeed_late) == "late"
    assert breaker.state is State.open


def test_a_late_failure_does_not_extend_the_open_period(breaker, clock):
    def fail_late():
        fail_times(breaker, 5)
        clock.advance(30)
        fail()

    with pytest.raises(Boom):
        breaker.call(fail_late)
    assert breaker.retry_after == pytest.approx(30.0, abs=0.002)


def test_late_failures_during_a_probe_change_nothing(breaker, clock):
    late = [breaker(suspended_failure)() for _ in range(3)]
    for call in late:
        call.send(None)
    fail_times(breaker, 5)
    clock.advance(60)

    def probe():
        for call in late:
            with pytest.raises(Boom):
                call.send(None)
        assert breaker.state is State.half_open
        assert not admitted_elsewhere(breaker)

    breaker.call(probe)
    assert breaker.state is State.closed


async def suspended_failure():
    await Suspend()
    fail()


def test_a_hung_probe_blocks_one_lease_and_its_verdict_is_stale(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    def hang():
        assert not admitted_elsewhere(breaker)
        clock.advance(60.1)
        with pytest.raises(Boom):
            call_elsewhere(breaker, fail)
        assert breaker.state is State.open
        return "too late"

    assert breaker.call(hang) == "too late"
    assert breaker.state is State.open


def call_elsewhere(breaker: CircuitBreaker, function):
    return contextvars.Context().run(breaker.call, function)


@pytest.mark.parametrize(
    "neutral", [KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError, MemoryError]
)
def test_what_says_nothing_about_the_dependency_is_neutral(breaker, clock, neutral):
    def interrupted():
        raise neutral

    fail_times(breaker, 3)
    with pytest.raises(neutral):
        breaker.call(interrupted)
    assert breaker.failure_count == 3
    fail_times(breaker, 2)
    clock.advance(60)
    with pytest.raises(neutral):
        breaker.call(interrupted)
    assert breaker.state is State.half_open
    assert admitted(breaker)


@pytest.mark.parametrize("stop", [StopIteration, StopAsyncIteration])
def test_the_iterator_protocol_is_a_success(breaker, stop):
    def exhausted():
        raise stop

    fail_times(breaker, 4)
    with pytest.raises(stop):
        breaker.call(exhausted)
    assert breaker.failure_count == 0


def test_another_open_circuit_is_neutral(breaker, clock):
    inner = CircuitBreaker("inner", 1, clock=clock)
    fail_times(inner, 1)
    for _ in range(10):
        with pytest.raises(CircuitOpenError, match="inner"):
            breaker.call(inner.call, succeed)
    assert breaker.state is State.closed


def test_probes_that_stay_neutral_open_the_circuit_again(breaker, clock):
    def interrupted():
        raise KeyboardInterrupt

    fail_times(breaker, 5)
    clock.advance(60)
    for state in (State.half_open, State.half_open, State.open):
        with pytest.raises(KeyboardInterrupt):
            breaker.call(interrupted)
        assert breaker.state is state


def test_a_call_inside_a_probe_runs_under_the_probe(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    @breaker
    def recursive(depth):
        if depth == 0:
            return 0
        return 1 + recursive(depth - 1)

    assert recursive(5) == 5
    assert breaker.state is State.closed


def test_a_failure_inside_a_probe_decides_only_by_the_outer_verdict(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    def tolerant():
        with pytest.raises(Boom):
            breaker.call(fail)
        return "fine"

    assert breaker.call(tolerant) == "fine"
    assert breaker.state is State.closed


def test_probes_of_two_breakers_nest(breaker, clock):
    other = CircuitBreaker("other", clock=clock)
    fail_times(breaker, 5)
    fail_times(other, 5)
    clock.advance(60)
    nested = breaker(other(breaker(other(succeed))))
    assert nested() == "ok"
    assert (breaker.state, other.state) == (State.closed, State.closed)


def test_after_a_neutral_probe_its_context_has_no_privilege_left(breaker, clock):
    def interrupted():
        raise KeyboardInterrupt

    fail_times(breaker, 5)
    clock.advance(60)
    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)

    def probe():
        assert not admitted_elsewhere(breaker)

    breaker.call(probe)
    assert breaker.state is State.closed


def test_trip_opens_and_reset_closes_by_hand(breaker):
    breaker.trip()
    assert breaker.state is State.open
    assert not admitted(breaker)
    breaker.reset()
    assert (breaker.state, breaker.failure_count) == (State.closed, 0)
    assert admitted(breaker)


def test_results_of_calls_that_ran_during_a_reset_are_ignored(breaker):
    def reset_then_fail():
        breaker.reset()
        fail()

    with pytest.raises(Boom):
        breaker.call(reset_then_fail)
    assert breaker.failure_count == 0


def test_a_short_timeout_is_never_early_and_at_most_a_millisecond_late(clock):
    breaker = CircuitBreaker("quick", 1, 0.001, clock=clock)
    clock.advance(0.0004)
    fail_times(breaker, 1)
    clock.advance(0.0009)
    assert not admitted(breaker)
    clock.advance(0.0011)
    assert admitted(breaker)


@pytest.mark.parametrize("clock", ["monotonic", "boottime"])
def test_the_real_clock_is_monotonic_time(clock):
    breaker = CircuitBreaker("real", 1, 0.02, clock=clock)
    fail_times(breaker, 1)
    opened = time.monotonic()
    while not admitted(breaker):
        assert time.monotonic() - opened < 5.0
    assert time.monotonic() - opened >= 0.018


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the system has no such clock")
def test_boottime_counts_suspended_time():
    breaker = CircuitBreaker("real", clock="boottime")
    assert breaker._core.now() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1.0)


def test_the_reason_of_an_opening_is_the_newest_failure(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    def fail_otherwise():
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        breaker.call(fail_otherwise)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.last_error == ("OSError", "unplugged")
    assert caught.value.failure_count == 6
