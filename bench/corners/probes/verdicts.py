"""What counts as a failure, as a success, and as neither."""

from __future__ import annotations

import asyncio
import contextlib

from bench.corners.adapters import LONG_S, Breaker
from bench.corners.tools import Held, cancel_inside, opened_async, promptly


def late_success(library: type[Breaker]) -> str:
    """late success while open"""
    breaker = library(timeout=LONG_S)
    with Held(breaker):
        promptly(breaker.fail, otherwise="n/a: calls run in a row")
    return {"open": "stays open"}.get(breaker.state(), "closes")


def cancelled(library: type[Breaker]) -> str:
    """cancel after 3 of 4 failures"""

    async def probe() -> str:
        await opened_async(library)  # where nothing opens, there is nothing more to ask
        breaker = library(failures=4, timeout=LONG_S, asynchronous=True)
        await breaker.fail_async(3)
        await cancel_inside(breaker)
        opened_by_it = breaker.state() == "open"
        await breaker.fail_async(1)
        return _verdict(opened_by_it, breaker.state() == "open")

    return asyncio.run(probe())


def keyboard_interrupt(library: type[Breaker]) -> str:
    """KeyboardInterrupt"""
    breaker = library(failures=4, timeout=LONG_S)
    breaker.fail(3)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt, breaker.rejection):
        breaker.guard(interrupted)()
    return verdict_after_three_failures(breaker)


def verdict_after_three_failures(breaker: Breaker) -> str:
    """How a breaker that opens at 4 took the call after 3 failures, by one more failure."""
    opened_by_it = breaker.state() == "open"
    breaker.fail(1)
    return _verdict(opened_by_it, breaker.state() == "open")


def _verdict(opened_by_it: bool, opened_after: bool) -> str:
    if opened_by_it:
        return "failure"
    return "neutral" if opened_after else "success"
