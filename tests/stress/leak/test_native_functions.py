"""Every native function, many times over: memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, TripRule, budget, pile_up
from memguard_native._core import Breaker, Guard, ManualClock, trampoline
from memguard_native.breaker import events, probing

pytestmark = pytest.mark.stress


class Boom(Exception):
    pass


def fail() -> None:
    raise Boom("no")


async def answer() -> int:
    return 1


async def fail_later() -> None:
    raise Boom("later")


def quietly(call: Callable[[], object]) -> None:
    with contextlib.suppress(Boom, CircuitOpenError):
        call()


def drive(coroutine) -> None:
    with contextlib.suppress(StopIteration, Boom, CircuitOpenError):
        coroutine.send(None)


def new_breaker() -> Breaker:
    return CircuitBreaker("leak")._core


def trip_and_probe() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker("leak", 1, clock=clock)
    quietly(breaker(fail))
    quietly(breaker(fail))
    clock.advance(60)
    drive(breaker(answer)())
    breaker.trip()
    clock.advance(60)
    breaker(answer)().close()
    quietly(breaker(fail))
    breaker.reset()
    breaker._core.after_fork(1)


CLOSED = CircuitBreaker("closed", 2**31 - 1)
OPEN = CircuitBreaker("open", clock=ManualClock())
OPEN.trip()

FALLBACK = CircuitBreaker("fallback", clock=ManualClock(), fallback="cached")
FALLBACK.trip()
JUDGED = CircuitBreaker(
    "judged",
    2**31 - 1,
    ignore=KeyError,
    failure_if=lambda error: True,
    failure_if_result=lambda result: False,
    reopen_after=lambda outcome: 1.0,
)


ASKING = CircuitBreaker(
    "asking",
    2**31 - 1,
    trip_if=(
        lambda snapshot: None,
        TripRule(lambda snapshot: None, when="verdict"),
        TripRule(lambda snapshot: None, when="admission"),
        budget(1e9, 60),
        pile_up(10),
    ),
    backoff=lambda attempt, outcome: 1.0,
)
SHADOW = CircuitBreaker("shadow", clock=ManualClock(), enforce=0.0)
SHADOW.trip()
RECONFIGURED = CircuitBreaker("reconfigured")
RATED = CircuitBreaker("rated", failure_rate=1.0, slow_rate=1.0, slow_call_duration=60.0)
CLOCK_OF_PROBED = ManualClock()
PROBED = CircuitBreaker("probed", clock=CLOCK_OF_PROBED, probe=lambda: None)
INLINE = CircuitBreaker("inline", on_event=lambda event: None, inline_events=True)


def count(to: int) -> Iterator[int]:
    yield from range(to)


async def count_later(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


async def consume(numbers: AsyncIterator[int]) -> None:
    async for _ in numbers:
        pass


def attempt_in_a_with_statement() -> None:
    with contextlib.suppress(Boom), CLOSED.attempt():
        raise Boom


def by_hand() -> None:
    breaker = CircuitBreaker("by hand")
    breaker.force_open(1.0)
    quietly(breaker(len))
    breaker.auto()
    breaker.disable()
    breaker(len)("x")
    breaker.reset()


def life_of_a_probe() -> None:
    PROBED.trip(0.001)
    CLOCK_OF_PROBED.advance(1)
    probing.run(PROBED._core, PROBED.config)


def change_rules() -> None:
    guarded = RECONFIGURED(len)
    for rules in ({"failure_rate": 0.5}, {"failure_rate": None}):
        RECONFIGURED.configure(**rules)
        guarded("x")


async def use(coroutine) -> int:
    return await coroutine


CASES: dict[str, Callable[[], object]] = {
    "guard": lambda: CLOSED(len)("x"),
    "guard that raises": lambda: quietly(CLOSED(fail)),
    "guard that rejects": lambda: quietly(OPEN(len)),
    "coroutine": lambda: drive(CLOSED(answer)()),
    "coroutine that raises": lambda: drive(CLOSED(fail_later)()),
    "coroutine that is rejected": lambda: drive(OPEN(answer)()),
    "coroutine that is closed": lambda: CLOSED(answer)().close(),
    "attributes": lambda: (CLOSED(fail).__name__, CLOSED(fail).__dict__, repr(CLOSED(fail))),
    "breaker": new_breaker,
    "life of a breaker": trip_and_probe,
    "error": lambda: str(CircuitOpenError("x", 1.0, "open", "open", (5, 1.0, ("E", "t")))),
    "generator": lambda: list(CLOSED(count)(3)),
    "generator that is dropped": lambda: next(CLOSED(count)(3)),
    "generator that is rejected": lambda: quietly(lambda: next(OPEN(count)(3))),
    "async generator": lambda: asyncio.run(consume(CLOSED(count_later)(3))),
    "attempt": lambda: CLOSED.attempt().success(),
    "attempt in a with statement": attempt_in_a_with_statement,
    "attempt that is rejected": lambda: quietly(OPEN.attempt),
    "fallback": lambda: FALLBACK(len)("x"),
    "fallback of a coroutine": lambda: drive(FALLBACK(answer)()),
    "judged exception": lambda: quietly(JUDGED(fail)),
    "judged result": lambda: JUDGED(len)("x"),
    "by hand": by_hand,
    "inline event": INLINE.reset,
    "snapshot": OPEN.snapshot,
    "asking": lambda: (ASKING(len)("x"), quietly(ASKING(fail))),
    "asking of a coroutine": lambda: (drive(ASKING(answer)()), ASKING(answer)().close()),
    "shadow": lambda: SHADOW(len)("x"),
    "other rules": change_rules,
    "rates": lambda: (RATED(len)("x"), quietly(RATED(fail))),
    "active probe": life_of_a_probe,
    "rejected arguments": lambda: drive(OPEN.call(use, answer())),
    "reason": lambda: OPEN.trip(reason="leak"),
    "trampoline": lambda: trampoline(len)("x"),
    "type": lambda: Guard.__name__,
}


@pytest.mark.parametrize("case", CASES)
def test_memory_stays_flat(case, caplog):
    caplog.set_level(logging.CRITICAL, "memguard_native.breaker")  # pytest keeps what is logged
    call = CASES[case]

    def growth() -> int:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            call()
        assert events.flush()
        gc.collect()  # also empties the free lists, the event thread's work included
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        growth()
        # One leaked pointer per call would be 8 kB; caches and counters of Python move less.
        assert any(growth() < 4096 for _ in range(3))
    finally:
        tracemalloc.stop()


def test_awaiting_on_a_real_loop_stays_flat():
    guarded = CLOSED(answer)

    async def main() -> list[int]:
        growth = []
        for _ in range(4):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(2000):
                await guarded()
            gc.collect()
            growth.append(tracemalloc.get_traced_memory()[0] - before)
        return growth

    tracemalloc.start()
    try:
        assert min(asyncio.run(main())[1:]) < 4096
    finally:
        tracemalloc.stop()
