"""`attempt()`, `with breaker:` and `async with breaker:`: a call that is no function."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State

from .calls import Boom, admitted, fail, fail_times


def test_leaving_the_block_is_a_success(breaker):
    fail_times(breaker, 4)
    with breaker.attempt():
        pass
    assert breaker.failure_count == 0


def test_an_exception_that_leaves_the_block_is_judged_and_passes(breaker):
    mine = Boom("mine")
    with pytest.raises(Boom) as caught, breaker.attempt():
        raise mine
    assert caught.value is mine
    assert breaker.failure_count == 1


def test_an_open_circuit_rejects_the_attempt(breaker):
    breaker.trip()
    with pytest.raises(CircuitOpenError):
        breaker.attempt()


def test_the_first_verdict_wins(breaker):
    def work():
        with breaker.attempt() as attempt:
            attempt.success()
            attempt.failure()
            fail()

    with pytest.raises(Boom):
        work()
    assert breaker.failure_count == 0


def test_a_failure_told_by_hand_names_its_exception(clock):
    breaker = CircuitBreaker("b", 1, clock=clock)
    with breaker.attempt() as attempt:
        attempt.failure(OSError("unplugged"))
    with pytest.raises(CircuitOpenError) as caught:
        breaker.attempt()
    assert caught.value.last_error == ("OSError", "unplugged")


@pytest.mark.parametrize("end", ["neutral", "drop"])
def test_a_probe_without_a_verdict_gives_its_slot_back(breaker, clock, end):
    fail_times(breaker, 5)
    clock.advance(60)
    attempt = breaker.attempt()
    assert breaker.state is State.half_open
    if end == "neutral":
        attempt.neutral()
    else:
        del attempt
    assert admitted(breaker)


def test_an_attempt_may_end_on_another_thread(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    attempt = breaker.attempt()
    thread = threading.Thread(target=attempt.success)
    thread.start()
    thread.join()
    assert breaker.state is State.closed


def test_a_call_inside_a_probing_attempt_runs_under_it(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    with breaker.attempt():
        with pytest.raises(Boom):
            breaker.call(fail)
        assert admitted(breaker)
    assert breaker.state is State.closed


def test_an_attempt_that_ended_on_another_thread_leaves_no_privilege_behind(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    attempt = breaker.attempt()
    thread = threading.Thread(target=attempt.neutral)
    thread.start()
    thread.join()
    probe = contextvars.Context().run(breaker.attempt)
    assert not admitted(breaker)
    probe.success()


def test_probing_attempts_that_end_out_of_order_leave_no_privilege_behind(clock):
    first, second = (CircuitBreaker(name, 1, clock=clock) for name in ("first", "second"))
    for breaker in (first, second):
        fail_times(breaker, 1)
    clock.advance(60)
    attempts = [first.attempt(), second.attempt()]
    for attempt in attempts:
        attempt.neutral()
    probes = [contextvars.Context().run(breaker.attempt) for breaker in (first, second)]
    assert not admitted(first)
    assert not admitted(second)
    for probe in probes:
        probe.success()


@pytest.mark.parametrize("wrong", [5, "error", Boom])
def test_a_failure_takes_an_exception_or_nothing(breaker, wrong):
    with pytest.raises(TypeError, match="takes an exception or None"):
        breaker.attempt().failure(wrong)


# --- with breaker ---------------------------------------------------------------------------------


def test_the_breaker_itself_is_a_context_manager(breaker):
    with breaker as entered:
        assert entered is breaker
    with pytest.raises(Boom), breaker:
        raise Boom
    assert breaker.failure_count == 1


def test_with_and_async_with_reject_when_open(breaker):
    breaker.trip()
    with pytest.raises(CircuitOpenError), breaker:
        pass

    async def main():
        async with breaker:
            pass

    with pytest.raises(CircuitOpenError):
        asyncio.run(main())


def test_blocks_of_several_breakers_and_of_one_nest(breaker, clock):
    other = CircuitBreaker("other", clock=clock)
    with pytest.raises(Boom), breaker, other, breaker:
        raise Boom
    assert (breaker.failure_count, other.failure_count) == (2, 1)


def test_each_task_has_its_own_block(breaker):
    async def work(number):
        async with breaker:
            await asyncio.sleep(0)
            if number % 2:
                raise Boom

    async def main():
        return await asyncio.gather(*map(work, range(4)), return_exceptions=True)

    assert [type(result) for result in asyncio.run(main())] == [type(None), Boom] * 2


def test_leaving_a_block_that_was_not_entered_last_is_an_error(breaker, clock):
    other = CircuitBreaker("other", clock=clock)
    with other, pytest.raises(RuntimeError, match="was not entered last"):
        breaker.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="was not entered last"):
        breaker.__exit__(None, None, None)


def test_probes_that_die_as_garbage_leave_no_trace_in_the_context(clock):
    def breaker_and_probe():
        breaker = CircuitBreaker("garbage", 1, clock=clock)
        breaker.trip()
        clock.advance(60)
        return breaker.attempt()

    class Cycle:
        pass

    for _ in range(5):
        first, second = Cycle(), Cycle()
        first.other, second.other = second, first
        first.probe, second.probe = breaker_and_probe(), breaker_and_probe()
        del first, second
        gc.collect()
        again = CircuitBreaker("again", 1, clock=clock)
        again.trip()
        clock.advance(60)
        assert admitted(again)
