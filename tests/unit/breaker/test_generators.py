"""Guarded generators of both kinds: admitted at the first next, judged at the end."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State

from .calls import Boom, admitted, fail_times


def numbers(to, *, failing=False):
    for number in range(to):
        received = yield number
        if received is not None:
            yield received
    if failing:
        raise Boom("midway")
    return "done"


async def async_numbers(to, *, failing=False):
    for number in range(to):
        await asyncio.sleep(0)
        yield number
    if failing:
        raise Boom("midway")


async def collect(iterable):
    return [item async for item in iterable]


# --- generators -----------------------------------------------------------------------------------


def test_a_generator_passes_values_and_its_return(breaker):
    def outer():
        return (yield from breaker(numbers)(3))

    running = outer()
    assert [next(running), next(running), next(running)] == [0, 1, 2]
    with pytest.raises(StopIteration) as stopped:
        next(running)
    assert stopped.value.value == "done"


def test_send_reaches_the_generator(breaker):
    running = breaker(numbers)(2)
    assert (next(running), running.send("sent"), next(running)) == (0, "sent", 1)


def test_exhaustion_is_a_success(breaker):
    fail_times(breaker, 4)
    assert list(breaker(numbers)(2)) == [0, 1]
    assert breaker.failure_count == 0


def test_a_generator_that_fails_midway_is_counted_once(breaker):
    with pytest.raises(Boom, match="midway"):
        list(breaker(numbers)(3, failing=True))
    assert breaker.failure_count == 1


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_generator_closed_early_is_neutral(breaker, end):
    fail_times(breaker, 4)
    running = breaker(numbers)(3)
    next(running)
    if end == "close":
        running.close()
    del running
    assert (breaker.state, breaker.failure_count) == (State.closed, 4)


def test_making_a_generator_asks_for_no_admission(breaker):
    breaker.trip()
    running = breaker(numbers)(3)
    with pytest.raises(CircuitOpenError):
        next(running)
    assert list(running) == []


def test_a_probing_generator_holds_its_slot_until_its_end(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    running = breaker(numbers)(1)
    assert next(running) == 0
    assert not admitted(breaker)
    assert list(running) == []
    assert breaker.state is State.closed


def test_code_between_two_steps_of_a_probe_is_no_part_of_it(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    def nested():
        yield breaker.call(len, "inside")

    running = breaker(nested)()
    assert next(running) == 6
    assert not admitted(breaker)
    running.close()
    assert admitted(breaker)


def test_an_exception_thrown_in_is_judged_when_it_comes_out(breaker):
    running = breaker(numbers)(3)
    next(running)
    with pytest.raises(Boom):
        running.throw(Boom("thrown"))
    assert breaker.failure_count == 1


def test_a_throw_before_the_start_is_no_call(breaker):
    with pytest.raises(Boom):
        breaker(numbers)(3).throw(Boom("early"))
    assert breaker.failure_count == 0


def test_a_guarded_generator_is_one_for_everybody(breaker):
    guarded = breaker(numbers)
    assert inspect.isgeneratorfunction(guarded)
    running = guarded(1)
    assert isinstance(running, collections.abc.Generator)
    assert running.gi_frame is not None
    assert "numbers" in repr(running)


# --- asynchronous generators ----------------------------------------------------------------------


def test_an_async_generator_passes_its_values(breaker):
    fail_times(breaker, 4)
    assert asyncio.run(collect(breaker(async_numbers)(3))) == [0, 1, 2]
    assert breaker.failure_count == 0


def test_an_async_generator_that_fails_midway_is_counted_once(breaker):
    with pytest.raises(Boom, match="midway"):
        asyncio.run(collect(breaker(async_numbers)(3, failing=True)))
    assert breaker.failure_count == 1


def test_an_async_generator_closed_early_is_neutral(breaker):
    fail_times(breaker, 4)

    async def main():
        running = breaker(async_numbers)(3)
        assert await anext(running) == 0
        await running.aclose()
        assert await collect(running) == []

    asyncio.run(main())
    assert (breaker.state, breaker.failure_count) == (State.closed, 4)


def test_an_async_generator_that_is_dropped_is_neutral_and_finalised_by_the_loop(breaker):
    fail_times(breaker, 4)
    finalised = []

    @breaker
    async def watched():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            finalised.append(True)

    async def main():
        async for _ in watched():
            break
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert finalised == [True]
    assert breaker.failure_count == 4


def test_asend_and_athrow_reach_the_async_generator(breaker):
    @breaker
    async def echo():
        received = None
        while True:
            try:
                received = yield received
            except KeyError:
                received = "caught"

    async def main():
        running = echo()
        await anext(running)
        answers = [await running.asend("x"), await running.athrow(KeyError())]
        with pytest.raises(Boom):
            await running.athrow(Boom("out"))
        return answers

    assert asyncio.run(main()) == ["x", "caught"]
    assert breaker.failure_count == 1


def test_making_an_async_generator_or_its_step_asks_for_no_admission(breaker):
    breaker.trip()

    async def main():
        running = breaker(async_numbers)(3)
        step = anext(running)
        with pytest.raises(CircuitOpenError):
            await step
        assert await collect(running) == []

    asyncio.run(main())


def test_a_cancelled_step_of_a_probing_async_generator_gives_the_slot_back(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)

    @breaker
    async def hang():
        await asyncio.Event().wait()
        yield

    async def main():
        task = asyncio.create_task(collect(hang()))
        await asyncio.sleep(0)
        assert not admitted(breaker)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert admitted(breaker)


def test_a_step_cannot_be_awaited_twice(breaker):
    async def main():
        step = anext(breaker(async_numbers)(2))
        assert await step == 0
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await step

    asyncio.run(main())


def test_a_guarded_async_generator_is_one_for_everybody(breaker):
    guarded = breaker(async_numbers)
    assert inspect.isasyncgenfunction(guarded)
    running = guarded(1)
    assert isinstance(running, collections.abc.AsyncGenerator)
    assert "async_numbers" in repr(running)


# --- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [next, lambda generator: generator.throw(Boom()), lambda generator: generator.close()]
)
def test_a_step_in_the_middle_of_a_step_says_nothing_to_the_breaker(clock, act):
    breaker = CircuitBreaker("b", 1, clock=clock)
    running = []

    @breaker
    def meddling():
        with pytest.raises(ValueError, match="generator already executing"):
            act(running[0])
        yield "fine"

    running.append(meddling())
    assert list(running[0]) == ["fine"]
    assert (breaker.state, breaker.snapshot().failures) == (State.closed, 0)


def test_two_steps_of_an_async_generator_at_once_say_nothing_to_the_breaker(clock):
    breaker = CircuitBreaker("b", 1, clock=clock)

    async def main():
        running = breaker(async_numbers)(2)
        results = await asyncio.gather(anext(running), anext(running), return_exceptions=True)
        assert results[0] == 0
        assert isinstance(results[1], RuntimeError)
        return await collect(running)

    assert asyncio.run(main()) == [1]
    assert (breaker.state, breaker.snapshot().failures) == (State.closed, 0)


# --- fallbacks ------------------------------------------------------------------------------------


def test_a_fallback_takes_the_place_of_a_rejected_generator(clock):
    breaker = CircuitBreaker("b", clock=clock, fallback=lambda to, **_: iter("ab" * to))
    breaker.trip()
    assert list(breaker(numbers)(2, failing=True)) == ["a", "b", "a", "b"]


def test_a_fallback_takes_the_place_of_a_rejected_async_generator(clock):
    async def cached(to):
        yield "cached"
        yield to

    breaker = CircuitBreaker("b", clock=clock, fallback=cached)
    breaker.trip()
    assert asyncio.run(collect(breaker(async_numbers)(7))) == ["cached", 7]
