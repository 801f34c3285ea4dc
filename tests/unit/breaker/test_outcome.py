"""What counts as a failure where the user decides it; fallbacks; timeouts."""

from __future__ import annotations

import asyncio
import contextvars
import logging

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State

from .calls import Boom, fail, fail_times, succeed


class HttpError(Exception):
    def __init__(self, status, retry_after=None):
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


def raiser(error):
    def raise_it():
        raise error

    return raise_it


def make(clock, **config):
    return CircuitBreaker("b", 3, clock=clock, **config)


def failures_after(breaker, error):
    with pytest.raises(type(error)):
        breaker.call(raiser(error))
    return breaker.failure_count


@pytest.mark.parametrize("ignore", [KeyError, (ValueError, KeyError), [KeyError], LookupError])
def test_an_ignored_type_is_neutral(clock, ignore):
    breaker = make(clock, ignore=ignore)
    fail_times(breaker, 2)
    assert failures_after(breaker, KeyError()) == 2
    assert failures_after(breaker, Boom()) == 3
    assert breaker.state is State.open


def test_an_ignored_exception_in_a_probe_gives_the_slot_back(clock):
    breaker = make(clock, ignore=KeyError)
    fail_times(breaker, 3)
    clock.advance(60)
    failures_after(breaker, KeyError())
    assert breaker.state is State.half_open
    assert breaker.call(succeed) == "ok"


def test_a_predicate_may_ignore(clock):
    breaker = make(clock, ignore=(KeyError, lambda error: "quota" in str(error)))
    assert failures_after(breaker, Boom("over quota")) == 0
    assert failures_after(breaker, Boom("other")) == 1


def test_failure_if_tells_failure_success_and_neutral(clock):
    by_status = {503: True, 404: False, 429: None}
    breaker = make(clock, failure_if=lambda error: by_status[error.status])
    assert failures_after(breaker, HttpError(503)) == 1
    assert failures_after(breaker, HttpError(429)) == 1
    assert failures_after(breaker, HttpError(503)) == 2
    assert failures_after(breaker, HttpError(404)) == 0


def test_a_predicate_that_raises_is_as_if_absent_and_logged_once(clock, caplog):
    breaker = make(clock, failure_if=lambda error: error.status, ignore=lambda error: 1 / 0)
    with caplog.at_level(logging.ERROR, "memguard_native.breaker"):
        assert failures_after(breaker, Boom()) == 1
        assert failures_after(breaker, Boom()) == 2
    assert [record.args[0] for record in caplog.records] == ["ignore", "failure_if"]


def test_a_predicate_may_use_the_breaker_itself(clock):
    breaker = make(clock, failure_if=lambda error: breaker.call(succeed) == "ok")
    assert failures_after(breaker, Boom()) == 1


def test_the_failing_call_gets_its_own_exception_whatever_the_predicate_does(clock):
    def meddle(error):
        try:
            raise LookupError("meddling")
        except LookupError:
            return True

    mine = Boom("mine")
    with pytest.raises(Boom) as caught:
        make(clock, failure_if=meddle).call(raiser(mine))
    assert caught.value is mine
    assert mine.__context__ is None


def test_a_bad_result_is_a_failure_and_still_returned(clock):
    breaker = make(clock, failure_if_result=lambda result: result == "busy")
    for count in (1, 2, 3):
        assert breaker.call(lambda: "busy") == "busy"
        assert breaker.failure_count == count
    assert breaker.state is State.open
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.last_error is None


def test_a_good_result_is_a_success(clock):
    breaker = make(clock, failure_if_result=lambda result: result == "busy")
    fail_times(breaker, 2)
    assert breaker.call(succeed) == "ok"
    assert breaker.failure_count == 0


def test_a_bad_result_of_a_coroutine_is_a_failure(clock):
    breaker = make(clock, failure_if_result=lambda result: result is None)

    @breaker
    async def nothing():
        return None

    asyncio.run(nothing())
    assert breaker.failure_count == 1


def test_base_exceptions_count_if_asked_but_never_cancellation(clock):
    breaker = make(clock, count_base_exceptions=True)
    assert failures_after(breaker, KeyboardInterrupt()) == 1
    assert failures_after(breaker, SystemExit()) == 2
    assert failures_after(breaker, asyncio.CancelledError()) == 2
    assert failures_after(breaker, GeneratorExit()) == 2
    assert failures_after(breaker, MemoryError()) == 2


# --- the time that the dependency asks for --------------------------------------------------------


def test_the_dependency_may_tell_how_long_to_stay_away(clock):
    breaker = make(clock, reopen_after=lambda error: getattr(error, "retry_after", None))
    fail_times(breaker, 2)
    failures_after(breaker, HttpError(429, retry_after=7))
    assert breaker.retry_after == pytest.approx(7.0, abs=0.002)


def test_without_a_told_time_the_configured_one_applies(clock):
    breaker = make(clock, reopen_after=lambda error: None)
    fail_times(breaker, 3)
    assert breaker.retry_after == pytest.approx(60.0, abs=0.002)


def test_a_told_time_is_clipped_to_the_longest_wait(clock):
    breaker = make(clock, reopen_after=lambda error: 1e12)
    fail_times(breaker, 3)
    assert breaker.retry_after == pytest.approx(300.0, abs=0.002)


@pytest.mark.parametrize("nonsense", [-1, float("nan"), "soon", object()])
def test_a_told_time_that_makes_no_sense_is_ignored(clock, nonsense):
    breaker = make(clock, reopen_after=lambda error: nonsense)
    fail_times(breaker, 3)
    assert breaker.retry_after == pytest.approx(60.0, abs=0.002)


def test_a_bad_result_may_tell_the_time_as_well(clock):
    breaker = CircuitBreaker(
        "b", 1, clock=clock, failure_if_result=lambda r: r < 0, reopen_after=lambda r: -r
    )
    assert breaker.call(lambda: -5) == -5
    assert breaker.retry_after == pytest.approx(5.0, abs=0.002)


# --- growing waits and several probes -------------------------------------------------------------


def test_each_failed_probe_doubles_the_wait_up_to_the_limit(clock):
    breaker = CircuitBreaker("b", 1, 10.0, clock=clock, backoff_factor=2.0, max_reset_timeout=30.0)
    waits = []
    for _ in range(4):
        fail_times(breaker, 1)
        waits.append(round(breaker.retry_after))
        clock.advance(breaker.retry_after)
    assert waits == [10, 20, 30, 30]


def test_jitter_draws_each_wait_within_its_bounds(clock):
    breaker = CircuitBreaker("b", 1, 10.0, clock=clock, jitter=0.5)
    waits = set()
    for _ in range(200):
        breaker.reset()
        fail_times(breaker, 1)
        waits.add(breaker.retry_after)
    assert 4.9 < min(waits) < 6.0
    assert 14.0 < max(waits) < 15.1
    assert len(waits) > 150


def test_the_wait_of_the_error_is_the_one_that_was_drawn(clock):
    breaker = CircuitBreaker("b", 1, 10.0, clock=clock, jitter=1.0)
    fail_times(breaker, 1)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.retry_after == breaker.retry_after


def test_several_successes_close_and_several_probes_run_at_once(clock):
    breaker = CircuitBreaker("b", 1, clock=clock, success_threshold=3, half_open_max=2)
    fail_times(breaker, 1)
    clock.advance(60)
    first, second = (contextvars.Context().run(breaker.attempt) for _ in range(2))
    with pytest.raises(CircuitOpenError):
        breaker.attempt()
    first.success()
    second.success()
    assert breaker.state is State.half_open
    breaker.call(succeed)
    assert breaker.state is State.closed


def test_a_lost_probe_may_count_as_a_failure(clock):
    breaker = CircuitBreaker("b", 1, clock=clock, probe_timeout=5.0, probe_expiry="failure")
    fail_times(breaker, 1)
    clock.advance(60)
    hung = breaker.attempt()
    clock.advance(5.1)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.attempt()
    assert (caught.value.reason, breaker.state) == ("open", State.open)
    hung.success()
    assert breaker.state is State.open


def test_without_a_threshold_failures_never_open(clock):
    breaker = CircuitBreaker("b", None, clock=clock)
    fail_times(breaker, 100)
    assert (breaker.state, breaker.failure_count) == (State.closed, 100)


# --- fallback -------------------------------------------------------------------------------------


def test_a_fallback_answers_a_rejected_call_with_its_arguments(clock):
    breaker = make(clock, fallback=lambda *args, **kwargs: (args, kwargs))
    breaker.trip()
    assert breaker(len)("x", y=1) == (("x",), {"y": 1})


def test_a_fallback_may_be_a_value(clock):
    breaker = make(clock, fallback=["cached"])
    breaker.trip()
    assert breaker.call(succeed) == ["cached"]


def test_a_fallback_does_not_answer_a_failure(clock):
    breaker = make(clock, fallback="cached")
    with pytest.raises(Boom):
        breaker.call(fail)


def test_a_fallback_that_raises_reaches_the_caller_without_the_rejection(clock):
    breaker = make(clock, fallback=fail)
    breaker.trip()
    with pytest.raises(Boom) as caught:
        breaker.call(succeed)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("is_async", [True, False])
def test_a_fallback_of_a_coroutine_may_be_of_either_kind(clock, is_async):
    async def later(x):
        await asyncio.sleep(0)
        return ("cached", x)

    breaker = make(clock, fallback=later if is_async else lambda x: ("cached", x))
    breaker.trip()

    @breaker
    async def work(x):
        return x

    async def main():
        return await work(5)

    assert asyncio.run(main()) == ("cached", 5)


# --- call_timeout and call_async ------------------------------------------------------------------


def test_a_call_that_takes_too_long_is_cancelled_and_a_failure(clock):
    breaker = make(clock, call_timeout=0.01)
    cancelled = []

    @breaker
    async def hang():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(TimeoutError):
        asyncio.run(hang())
    assert (cancelled, breaker.failure_count) == ([True], 1)


def test_a_timeout_around_the_guarded_call_is_neutral(clock):
    breaker = make(clock)
    fail_times(breaker, 2)

    @breaker
    async def hang():
        await asyncio.Event().wait()

    async def main():
        async with asyncio.timeout(0.01):
            await hang()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert breaker.failure_count == 2


def test_call_timeout_refuses_what_it_cannot_cancel(clock):
    with pytest.raises(TypeError, match="call_timeout is for coroutine functions"):
        make(clock, call_timeout=1.0)(succeed)


def test_call_async_guards_a_plain_function_that_returns_an_awaitable(breaker):
    async def work(x, *, y):
        if y:
            raise Boom
        return x

    async def main():
        assert await breaker.call_async(lambda x, y: work(x, y=y), 1, y=0) == 1
        with pytest.raises(Boom):
            await breaker.call_async(lambda x, y: work(x, y=y), 1, y=1)
        breaker.trip()
        pending = breaker.call_async(lambda: work(1, y=0))
        with pytest.raises(CircuitOpenError):
            await pending

    asyncio.run(main())


def test_a_rejected_call_closes_the_coroutines_among_its_arguments(breaker):
    async def work():
        return 1

    breaker.trip()
    with pytest.raises(CircuitOpenError):
        breaker.call(asyncio.run, work())
