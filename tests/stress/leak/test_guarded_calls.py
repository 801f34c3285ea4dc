"""Guarded calls by the hundred thousand leak neither references nor memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Callable

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError
from memguard_native.breaker import events
from memguard_native.memory.probe import NativeProbe

pytestmark = pytest.mark.stress


class Argument:
    """Something to count the references of."""


class Boom(Exception):
    pass


def echo(argument: Argument, *, keyword: Argument) -> Argument:
    return argument


def fail(argument: Argument, *, keyword: Argument) -> Argument:
    raise Boom


async def echo_later(argument: Argument, *, keyword: Argument) -> Argument:
    return argument


ARGUMENT, KEYWORD = Argument(), Argument()
CLOSED = CircuitBreaker("closed", None)
OPEN = CircuitBreaker("open", reset_timeout=3600.0)
OPEN.trip()


def repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        with contextlib.suppress(Boom, CircuitOpenError):
            call()


def await_often(times: int) -> None:
    guarded = CLOSED(echo_later)

    async def main() -> None:
        for _ in range(times):
            await guarded(ARGUMENT, keyword=KEYWORD)

    asyncio.run(main())


def caller(function: Callable[..., object], breaker: CircuitBreaker) -> Callable[[int], None]:
    guarded = breaker(function)
    return lambda times: repeat(lambda: guarded(ARGUMENT, keyword=KEYWORD), times)


CASES: dict[str, Callable[[int], None]] = {
    "success": caller(echo, CLOSED),
    "failure": caller(fail, CLOSED),
    "rejection": caller(echo, OPEN),
    "coroutine": await_often,
    "counted": caller(echo, CircuitBreaker("counted", None, count_calls=True)),
    "attempt": lambda times: repeat(lambda: CLOSED.attempt().success(), times),
}


def references(case: str) -> list[int]:
    breaker = OPEN if case == "rejection" else CLOSED
    return [sys.getrefcount(one) for one in (ARGUMENT, KEYWORD, breaker, breaker._core, echo, Boom)]


def check_leaks_nothing(case: str, times: int) -> None:
    probe = NativeProbe()

    def growth() -> int:
        gc.collect()
        references_before, objects_before = references(case), len(gc.get_objects())
        memory_before = probe.sample().private_bytes
        CASES[case](times)
        gc.collect()
        assert references(case) == references_before
        # Fewer is no leak: what earlier tests left behind may go meanwhile.
        assert len(gc.get_objects()) - objects_before < 50
        return probe.sample().private_bytes - memory_before

    CASES[case](times // 10)  # caches and pools fill
    assert events.flush()
    # A leaked pointer would be 8 bytes a call; the smallest of three is free of other causes.
    assert any(growth() < max(4 * times, 512 * 1024) for _ in range(3))


@pytest.mark.parametrize("case", CASES)
def test_guarded_calls_leak_nothing(case):
    check_leaks_nothing(case, 50_000)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_million_guarded_calls_leak_nothing(case):
    check_leaks_nothing(case, 1_000_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_calls_of_a_forked_child_leak_nothing():
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(AssertionError):
            check_leaks_nothing("success", 50_000)
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
