"""What the decorator protects, and what is protected without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from bench.corners.adapters import LONG_S, Breaker, succeed
from bench.corners.probes.verdicts import verdict_after_three_failures
from bench.corners.tools import opened
from bench.rivals import SimulatedOutageError

# Makes the attribute of a class, given the decorator.
Definition = Callable[[Callable[..., Any]], Any]


def without_decorator(library: type[Breaker]) -> str:
    """`.call` / `with` reject when open"""

    def enter(breaker: Breaker) -> None:
        with breaker.block():
            pass

    ways: tuple[Callable[[Breaker], object], ...] = (lambda breaker: breaker.call(succeed), enter)
    return " / ".join(_rejects(opened(library, timeout=LONG_S), way) for way in ways)


def _rejects(breaker: Breaker, way: Callable[[Breaker], object]) -> str:
    try:
        way(breaker)
    except NotImplementedError:
        return "n/a"
    except breaker.rejection:
        return "yes"
    return "no"


def coroutine_function(library: type[Breaker]) -> str:
    """`@breaker async def` protected"""

    async def probe() -> str:
        breaker = library(failures=2, timeout=LONG_S, asynchronous=True)
        if not await breaker.runs_async():
            return "rejects from the start"
        await breaker.fail_async(2)
        return "no" if await breaker.runs_async() else "yes"

    return asyncio.run(probe())


def generator(library: type[Breaker]) -> str:
    """generator failing midway / closed early"""

    def numbers(failing: bool) -> Iterator[int]:
        yield 1
        if failing:
            raise SimulatedOutageError
        yield 2

    breaker = library(timeout=LONG_S)
    with contextlib.suppress(SimulatedOutageError, breaker.rejection):
        list(breaker.guard(numbers)(failing=True))
    midway = "counted" if breaker.state() == "open" else "not counted"

    breaker = library(failures=4, timeout=LONG_S)
    breaker.fail(3)
    running = breaker.guard(numbers)(failing=False)
    next(running)
    with contextlib.suppress(breaker.rejection):
        running.close()
    return f"{midway} / {verdict_after_three_failures(breaker)}"


def asynchronous_generator(library: type[Breaker]) -> str:
    """async generator protected"""

    async def numbers() -> AsyncIterator[int]:
        yield 1
        raise SimulatedOutageError

    async def probe() -> str:
        breaker = library(timeout=LONG_S, asynchronous=True)
        guarded = breaker.guard(numbers)
        for _ in range(2):
            try:
                async for _ in guarded():
                    pass
            except SimulatedOutageError:
                continue
            except breaker.rejection:
                return "yes"
            except TypeError:
                return "TypeError"
        return "no"

    return asyncio.run(probe())


def methods(library: type[Breaker]) -> str:
    """methods"""

    def work(owner: object, fails: bool) -> object:
        if fails:
            raise SimulatedOutageError
        return owner

    def work_of_nobody(fails: bool) -> object:
        return work(None, fails)

    ways: dict[str, Definition] = {
        "plain": lambda guard: guard(work),
        "under classmethod": lambda guard: classmethod(guard(work)),
        "over classmethod": lambda guard: guard(classmethod(work)),
        "under staticmethod": lambda guard: staticmethod(guard(work_of_nobody)),
        "over staticmethod": lambda guard: guard(staticmethod(work_of_nobody)),
    }
    unprotected = [way for way, define in ways.items() if not _protects(library, way, define)]
    return f"all but {', '.join(unprotected)}" if unprotected else "all"


def _protects(library: type[Breaker], way: str, define: Definition) -> bool:
    """Whether the method is called with its owner, and its failure opens the circuit."""
    breaker = library(timeout=LONG_S)
    try:
        owner = type("Client", (), {"method": define(breaker.guard)})
        client = owner()
        given = client.method(False)
    except (TypeError, breaker.rejection):
        return False
    kind = way.rpartition(" ")[2]
    if given is not {"classmethod": owner, "staticmethod": None}.get(kind, client):
        return False
    with contextlib.suppress(SimulatedOutageError, breaker.rejection):
        client.method(True)
    return breaker.state() == "open"
