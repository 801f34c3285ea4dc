"""Rate rules: failures and slow calls over the newest calls and over the newest seconds."""

from __future__ import annotations

import asyncio

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, ConfigError, State

from .calls import Boom, admitted, fail, fail_times, succeed

FORMS = ["function", "coroutine", "generator", "async generator", "attempt"]


def make(clock, **rules):
    return CircuitBreaker("b", None, clock=clock, **{"minimum_calls": 4, **rules})


def run(breaker, form, *, failing=False, seconds=0.0, clock=None):
    """One whole call in this form; it takes so long and then fails or not."""

    def work():
        if seconds:
            clock.advance(seconds)
        if failing:
            raise Boom

    async def later():
        work()

    def generate():
        yield
        work()

    async def generate_later():
        yield
        work()

    async def consume():
        async for _ in breaker(generate_later)():
            pass

    match form:
        case "function":
            breaker.call(work)
        case "coroutine":
            asyncio.run(breaker(later)())
        case "generator":
            list(breaker(generate)())
        case "async generator":
            asyncio.run(consume())
        case _:
            with breaker.attempt():
                work()


@pytest.mark.parametrize("form", FORMS)
def test_a_failure_rate_opens_from_the_minimum_of_calls_on(clock, form):
    breaker = make(clock, failure_rate=0.5)
    run(breaker, form)
    for _ in range(2):
        with pytest.raises(Boom):
            run(breaker, form, failing=True)
        assert breaker.state is State.closed
    run(breaker, form)
    assert breaker.state is State.closed, "a success never trips"
    with pytest.raises(Boom):
        run(breaker, form, failing=True)
    assert breaker.state is State.open


@pytest.mark.parametrize("form", FORMS)
def test_slow_calls_open_whether_they_fail_or_not(clock, form):
    breaker = make(clock, slow_rate=0.5, slow_call_duration=2.0)
    for _ in range(2):
        run(breaker, form)
    run(breaker, form, seconds=2.0, clock=clock)
    assert breaker.state is State.closed
    with pytest.raises(Boom):
        run(breaker, form, failing=True, seconds=5.0, clock=clock)
    assert breaker.state is State.open


def test_a_fast_call_is_not_slow(clock):
    breaker = make(clock, slow_rate=0.01, slow_call_duration=2.0, minimum_calls=1)
    run(breaker, "function", seconds=1.999, clock=clock)
    assert breaker.state is State.closed


def test_a_cancelled_call_that_hung_is_slow(clock):
    breaker = make(clock, slow_rate=1.0, slow_call_duration=2.0, minimum_calls=1)

    @breaker
    async def hang():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        clock.advance(3.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert breaker.state is State.open


def test_old_calls_leave_a_full_count_window(clock):
    breaker = make(clock, failure_rate=0.5, count_window=4)
    fail_times(breaker, 1)
    for _ in range(4):
        assert admitted(breaker)
    fail_times(breaker, 1)
    assert breaker.state is State.closed
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_old_seconds_leave_a_time_window(clock):
    breaker = make(clock, failure_rate=0.5, time_window=60.0)
    for _ in range(1000):
        admitted(breaker)
    clock.advance(61)
    fail_times(breaker, 4)
    assert breaker.state is State.open


def test_neutral_stale_and_rejected_calls_are_not_in_the_window(clock):
    breaker = make(clock, failure_rate=0.5, ignore=KeyError)
    running = [breaker.attempt() for _ in range(10)]
    breaker.reset()
    for attempt in running:
        attempt.failure()
    for _ in range(10):
        with pytest.raises(KeyError):
            breaker.call({}.__getitem__, "missing")
    assert breaker.snapshot().window_calls == 0
    breaker.trip()
    assert not admitted(breaker)
    assert breaker.snapshot().window_calls == 0


def test_a_closing_starts_a_fresh_window(clock):
    breaker = make(clock, failure_rate=0.5)
    fail_times(breaker, 4)
    assert breaker.state is State.open
    clock.advance(60)
    assert admitted(breaker)
    fail_times(breaker, 3)
    assert breaker.state is State.closed
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_rules_are_joined_by_or_and_the_first_names_the_reason(clock):
    reasons = []
    breaker = CircuitBreaker(
        "b",
        3,
        clock=clock,
        failure_rate=0.5,
        minimum_calls=2,
        on_event=lambda event: reasons.append(event.reason),
        inline_events=True,
    )
    fail_times(breaker, 2)
    breaker.reset()
    for _ in range(10):
        admitted(breaker)
    fail_times(breaker, 3)
    assert reasons == ["failure_rate", "reset", "consecutive_failures"]


def test_the_snapshot_shows_the_window(clock):
    breaker = make(clock, failure_rate=0.9, slow_rate=0.9, slow_call_duration=1.0, count_window=10)
    for _ in range(20):
        admitted(breaker)
    fail_times(breaker, 2)
    run(breaker, "function", seconds=1.0, clock=clock)
    found = breaker.snapshot()
    assert (found.window_calls, found.window_failures, found.window_slow) == (10, 2, 1)


def test_a_real_clock_finds_slow_calls():
    import time

    breaker = CircuitBreaker(
        "b", slow_rate=1.0, slow_call_duration=0.01, minimum_calls=1, reset_timeout=60
    )
    breaker.call(time.sleep, 0.012)
    with pytest.raises(CircuitOpenError):
        breaker.call(succeed)


def test_a_result_that_failed_is_in_the_window(clock):
    breaker = make(clock, failure_rate=0.5, failure_if_result=lambda result: result < 0)
    for value in (1, 1, -1, -1):
        breaker.call(lambda result: result, value)
    assert breaker.state is State.open


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"failure_rate": 0}, "failure_rate"),
        ({"failure_rate": 1.01}, "failure_rate"),
        ({"failure_rate": "half"}, "failure_rate"),
        ({"slow_rate": 0.5}, "slow_call_duration"),
        ({"slow_call_duration": 1.0}, "slow_call_duration"),
        ({"slow_rate": 0.5, "slow_call_duration": 0}, "slow_call_duration"),
        ({"count_window": 0}, "count_window"),
        ({"count_window": 10_001}, "count_window"),
        ({"time_window": 0.5}, "time_window"),
        ({"time_window": 86_401}, "time_window"),
        ({"minimum_calls": 101}, "minimum_calls"),
        ({"minimum_calls": 0}, "minimum_calls"),
    ],
)
def test_bad_rules_are_refused(rules, field):
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("b", **rules)
    assert caught.value.field == field


def test_a_small_window_needs_fewer_calls_by_default():
    assert CircuitBreaker("b", count_window=10).config.minimum_calls == 10
    assert CircuitBreaker("b").config.minimum_calls == 20


def test_the_failing_call_of_a_rate_is_told_on_rejection(clock):
    breaker = make(clock, failure_rate=0.5, minimum_calls=1)
    with pytest.raises(Boom):
        breaker.call(fail)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.last_error == ("Boom", "no answer")
    assert caught.value.cause == breaker.snapshot().cause == "failure_rate"
    assert "(failure rate reached, last: Boom)" in str(caught.value)


def test_a_slow_call_that_opened_is_told_on_rejection(clock):
    breaker = make(clock, slow_rate=0.5, slow_call_duration=1.0, minimum_calls=1)
    run(breaker, "function", seconds=1.0, clock=clock)
    with pytest.raises(CircuitOpenError, match=r"\(slow-call rate reached\)"):
        breaker.call(succeed)
