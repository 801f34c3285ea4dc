"""After the open period: the call that tries whether the dependency is back."""

from __future__ import annotations

import asyncio
import contextlib

from bench.corners.adapters import Breaker, IgnoredError
from bench.corners.tools import (
    AnsweredError,
    Held,
    cancel_inside,
    crowd,
    crowd_async,
    opened,
    opened_async,
    promptly,
)
from bench.rivals import SimulatedOutageError


def async_crowd(library: type[Breaker]) -> str:
    """50 async calls after the timeout: how many run"""

    async def probe() -> str:
        breaker = await opened_async(library)
        breaker.let_time_pass()
        return str(await crowd_async(breaker, 50))

    return asyncio.run(probe())


def thread_crowd(library: type[Breaker]) -> str:
    """20 threads, the same"""
    breaker = opened(library)
    breaker.let_time_pass()
    came = crowd(breaker, 20)
    return f"{came.ran} in a row" if came.ran > came.together else str(came.ran)


def late_failures(library: type[Breaker]) -> str:
    """late failures while a probe runs"""
    breaker = library()
    late = [Held(breaker) for _ in range(3)]
    breaker.fail()
    breaker.let_time_pass()
    with Held(breaker):
        for call in late:
            call.end(SimulatedOutageError())
        during = breaker.state()
    return {
        ("half-open", "closed"): "ignored",
        ("open", "closed"): "reopen, then the probe closes",
        ("open", "open"): "reopen, the probe's success is lost",
    }.get((during, breaker.state()), f"{during}, then {breaker.state()}")


def cancelled(library: type[Breaker]) -> str:
    """probe cancelled"""

    async def probe() -> str:
        breaker = await opened_async(library)
        breaker.let_time_pass()
        await cancel_inside(breaker)
        state = breaker.state()
        return _slot(state, await crowd_async(breaker, 2))

    return asyncio.run(probe())


def ignored(library: type[Breaker]) -> str:
    """ignored exception in a probe"""
    breaker = opened(library)
    breaker.let_time_pass()

    def ignorable() -> None:
        raise IgnoredError

    with contextlib.suppress(IgnoredError):
        breaker.guard(ignorable)()
    state = breaker.state()
    return _slot(state, crowd(breaker, 2).ran)


def _slot(state: str, admitted: int) -> str:
    """What became of a probe that ended without a verdict, by the next two that call at once."""
    if state == "closed":
        return "closes"
    if state == "open" and admitted == 0:
        return "reopens"
    return {0: "slot lost", 1: "slot back"}.get(admitted, "everybody runs")


def hung(library: type[Breaker]) -> str:
    """probe hangs: later calls"""
    breaker = opened(library)
    breaker.let_time_pass()
    with Held(breaker):
        for _ in range(3):
            breaker.let_time_pass()
        later = crowd(breaker, 5)
        if later.ran == 0:
            return "never again" if later.rejected == 5 else "block"
        return "one runs after a lease" if later.ran == 1 else "everybody runs"


def recursion(library: type[Breaker]) -> str:
    """reentrant recursion in a probe"""
    breaker = opened(library)
    breaker.let_time_pass()
    states: list[str] = []
    inner = breaker.guard(lambda: None)

    def outer() -> None:
        try:
            inner()
        except breaker.rejection:
            raise AnsweredError("inner call rejected") from None
        states.append(breaker.state())

    promptly(breaker.guard(outer), otherwise="deadlocks")
    states.append(breaker.state())
    return {
        ("half-open", "closed"): "runs, the outer call decides",
        ("closed", "closed"): "runs, the inner call decides",
    }.get(tuple(states), " then ".join(states))
