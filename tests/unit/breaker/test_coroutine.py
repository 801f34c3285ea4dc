"""Coroutine functions: admission at the first await, the verdict at the end."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import inspect
import traceback
import weakref

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State

from .calls import Boom, Suspend, fail_times


async def answer(value=42):
    await asyncio.sleep(0)
    return value


async def fail_later():
    await asyncio.sleep(0)
    raise Boom("later")


async def hang():
    await asyncio.get_running_loop().create_future()


def half_open(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)


def run(main):
    return asyncio.run(main())


@pytest.mark.parametrize("value", [None, 42, (1, 2), (), ValueError("as a value"), [3]])
def test_any_result_arrives_as_it_is(breaker, value):
    async def main():
        assert await breaker(answer)(value) is value
        assert await asyncio.create_task(breaker(answer)(value)) is value

    run(main)


def test_admission_falls_at_the_first_await_not_at_the_call(breaker):
    guarded = breaker(answer)
    waiting = guarded()
    fail_times(breaker, 5)
    with pytest.raises(CircuitOpenError):
        run(lambda: waiting)


def test_a_rejected_coroutine_is_closed_and_nothing_warns(breaker, recwarn):
    fail_times(breaker, 5)

    async def main():
        waiting = [breaker(answer)() for _ in range(50)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {CircuitOpenError}
        assert {coroutine.cr_frame for coroutine in waiting} == {None}

    run(main)
    gc.collect()
    assert [str(w.message) for w in recwarn] == []


def test_fifty_callers_after_the_timeout_make_one_probe(breaker, clock):
    half_open(breaker, clock)
    ran = []

    @breaker
    async def probe():
        ran.append(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def main():
        return await asyncio.gather(*[probe() for _ in range(50)], return_exceptions=True)

    results = run(main)
    assert len(ran) == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 49
    assert all(r.reason == "probing" for r in results if isinstance(r, CircuitOpenError))
    assert breaker.state is State.closed


def test_failures_are_counted_when_they_arrive(breaker):
    async def main():
        return await asyncio.gather(
            *[breaker(fail_later)() for _ in range(5)], return_exceptions=True
        )

    assert {str(result) for result in run(main)} == {"later"}
    assert breaker.state is State.open


def test_cancellation_is_neutral(breaker):
    fail_times(breaker, 3)

    async def main():
        task = asyncio.create_task(breaker(hang)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert breaker.failure_count == 3


def test_a_cancelled_probe_gives_its_slot_back(breaker, clock):
    half_open(breaker, clock)

    async def main():
        task = asyncio.create_task(breaker(hang)())
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError):
            await breaker(answer)()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert breaker.state is State.half_open
        assert await breaker(answer)() == 42

    run(main)
    assert breaker.state is State.closed


def test_a_hung_probe_loses_its_slot_when_its_lease_ends(breaker, clock):
    half_open(breaker, clock)

    async def main():
        task = asyncio.create_task(breaker(hang)())
        await asyncio.sleep(0)
        clock.advance(59)
        with pytest.raises(CircuitOpenError):
            await breaker(answer)()
        clock.advance(1.1)
        assert await breaker(answer)() == 42
        assert breaker.state is State.closed
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert breaker.state is State.closed


def test_a_dropped_probe_gives_its_slot_back(breaker, clock):
    half_open(breaker, clock)
    probe = breaker(suspend)()
    probe.send(None)
    assert breaker.state is State.half_open
    del probe
    gc.collect()
    assert breaker.call(int) == 0


async def suspend():
    return await Suspend()


def test_send_throw_and_close_reach_the_coroutine(breaker):
    sent = breaker(suspend)()
    assert sent.send(None) == "suspended"
    with pytest.raises(StopIteration) as stop:
        sent.send("value")
    assert stop.value.value == "value"

    thrown = breaker(suspend)()
    thrown.send(None)
    with pytest.raises(Boom):
        thrown.throw(Boom("thrown"))
    assert breaker.failure_count == 1

    closed = breaker(suspend)()
    closed.send(None)
    closed.close()
    assert breaker.failure_count == 1


def test_before_the_start_throw_and_close_are_neither_admitted_nor_judged(breaker):
    fail_times(breaker, 4)
    with pytest.raises(Boom):
        breaker(suspend)().throw(Boom("early"))
    breaker(suspend)().close()
    assert breaker.failure_count == 4
    fail_times(breaker, 1)
    breaker(suspend)().close()


def test_a_throw_that_ends_in_a_return_is_a_success(breaker):
    async def forgiving():
        try:
            await Suspend()
        except Boom:
            return "forgiven"

    fail_times(breaker, 4)
    coroutine = breaker(forgiving)()
    coroutine.send(None)
    with pytest.raises(StopIteration) as stop:
        coroutine.throw(Boom("x"))
    assert stop.value.value == "forgiven"
    assert breaker.failure_count == 0


def test_an_exception_while_closing_is_neutral_and_reaches_the_caller(breaker):
    async def stubborn():
        try:
            await Suspend()
        finally:
            raise Boom("on the way out")

    coroutine = breaker(stubborn)()
    coroutine.send(None)
    with pytest.raises(Boom, match="on the way out"):
        coroutine.close()
    assert breaker.failure_count == 0


def test_awaiting_twice_is_the_usual_runtime_error(breaker):
    async def main():
        once = breaker(answer)()
        await once
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await once
        shared = breaker(answer)()
        results = await asyncio.gather(wait(shared), wait(shared), return_exceptions=True)
        assert results[0] == 42
        assert "being awaited already" in str(results[1])

    async def wait(coroutine):
        return await coroutine

    run(main)
    assert breaker.failure_count == 0


def test_a_guard_that_is_never_awaited_warns_as_usual(breaker):
    with pytest.warns(RuntimeWarning, match="never awaited"):
        breaker(answer)()


def test_it_is_a_coroutine_for_asyncio_and_the_abstract_classes(breaker):
    coroutine = breaker(answer)()
    assert isinstance(coroutine, collections.abc.Coroutine)
    assert isinstance(coroutine, collections.abc.Awaitable)
    assert asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert coroutine.__name__ == "answer"
    assert coroutine.cr_frame is not None
    assert "answer" in repr(coroutine)
    assert weakref.ref(coroutine)() is coroutine
    coroutine.close()


def test_tracebacks_get_no_frame_of_ours(breaker):
    async def main():
        with pytest.raises(Boom) as caught:
            await breaker(fail_later)()
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    assert run(main) == ["main", "fail_later"]


def test_wait_for_task_group_and_timeout_work(breaker):
    async def main():
        assert await asyncio.wait_for(breaker(answer)(), 5) == 42
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(breaker(answer)(i)) for i in range(3)]
        assert [task.result() for task in tasks] == [0, 1, 2]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await breaker(hang)()

    run(main)
    assert breaker.failure_count == 0


def test_async_methods_and_objects_with_an_async_call_are_guarded(breaker):
    class Service:
        @breaker
        async def method(self):
            await fail_later()

        async def __call__(self):
            await fail_later()

    service = Service()
    guarded = breaker(service)

    async def main():
        for call in (service.method, guarded, guarded, guarded, service.method):
            with pytest.raises(Boom):
                await call()

    run(main)
    assert breaker.state is State.open


def test_call_of_a_coroutine_function_returns_its_awaitable(breaker):
    async def main():
        assert await breaker.call(answer, 7) == 7
        fail_times(breaker, 5)
        waiting = breaker.call(answer, 7)
        with pytest.raises(CircuitOpenError):
            await waiting

    run(main)


def test_a_recursive_async_probe_runs_under_its_own_token(breaker, clock):
    half_open(breaker, clock)

    @breaker
    async def recurse(depth):
        await asyncio.sleep(0)
        return depth if depth == 0 else await recurse(depth - 1)

    assert run(lambda: recurse(4)) == 0
    assert breaker.state is State.closed


def test_a_probe_driven_from_several_contexts_gives_its_verdict(breaker, clock):
    half_open(breaker, clock)
    probe = breaker(suspend)()
    contextvars.Context().run(probe.send, None)
    with pytest.raises(StopIteration):
        contextvars.Context().run(probe.send, "done")
    assert breaker.state is State.closed


def test_garbage_cycles_through_a_running_probe_are_collected(breaker, clock):
    half_open(breaker, clock)

    async def hold(cell):
        await Suspend()

    cell = []
    probe = breaker(hold)(cell)
    cell.append(probe)
    probe.send(None)
    reference = weakref.ref(probe)
    del probe, cell
    gc.collect()
    assert reference() is None
    assert breaker.call(int) == 0


def test_a_send_in_the_middle_of_a_step_says_nothing_to_the_breaker(clock):
    breaker = CircuitBreaker("b", 1, clock=clock)
    running = []

    @breaker
    async def meddling():
        with pytest.raises(ValueError, match="coroutine already executing"):
            running[0].send(None)
        return "fine"

    running.append(meddling())
    with pytest.raises(StopIteration, match="fine"):
        running[0].send(None)
    assert (breaker.state, breaker.snapshot().failures) == (State.closed, 0)


@pytest.mark.parametrize("by", ["call", "call_async"])
def test_a_rejected_call_closes_coroutines_among_its_arguments(breaker, by):
    async def use(coroutine, also=None):
        return await coroutine

    async def argument():
        return "used"

    breaker.trip()
    unused, named = argument(), argument()
    with pytest.raises(CircuitOpenError):
        asyncio.run(awaited(getattr(breaker, by)(use, unused, also=named)))
    assert inspect.getcoroutinestate(unused) == inspect.CORO_CLOSED
    assert inspect.getcoroutinestate(named) == inspect.CORO_CLOSED
    breaker.reset()
    assert asyncio.run(awaited(getattr(breaker, by)(use, argument()))) == "used"


def test_a_fallback_gets_the_coroutine_among_the_arguments_unclosed(clock):
    async def use(coroutine):
        return await coroutine

    async def argument():
        return "used"

    breaker = CircuitBreaker("fallback", clock=clock, fallback=use)
    breaker.trip()
    assert asyncio.run(awaited(breaker.call(use, argument()))) == "used"


async def awaited(awaitable):
    return await awaitable
