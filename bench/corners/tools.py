"""What the probes share: calls that are held open, crowds of callers, waits that end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from bench.corners.adapters import Breaker
from bench.rivals import SimulatedOutageError

# How long a call that nothing should hold up may take, in seconds.
PATIENCE_S = 1.0


class AnsweredError(Exception):
    """The answer was found before the end of the probe: its text."""


def opened(library: type[Breaker], **options: Any) -> Breaker:
    """A breaker that a failure has opened."""
    breaker = library(**options)
    breaker.fail()
    return _checked(breaker)


async def opened_async(library: type[Breaker], **options: Any) -> Breaker:
    """The same, by the failure of a coroutine."""
    breaker = library(asynchronous=True, **options)
    await breaker.fail_async()
    return _checked(breaker)


def _checked(breaker: Breaker) -> Breaker:
    if breaker.state() != "open":
        raise AnsweredError("n/a: never opens")
    return breaker


def promptly(call: Callable[[], object], otherwise: str) -> None:
    """Make the call on another thread; where it does not return, that is the answer."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if thread.is_alive():
        raise AnsweredError(otherwise)
    for error in errors:
        raise error


class Held:
    """A guarded call on a thread of its own, which stays inside until it is ended."""

    def __init__(self, breaker: Breaker) -> None:
        self._entered, self._leave = threading.Event(), threading.Event()
        self._error: BaseException | None = None

        # Not the method itself: some decorators take nothing but plain functions.
        def stay() -> None:
            self._entered.set()
            self._leave.wait()
            if self._error is not None:
                raise self._error

        guarded = breaker.guard(stay)

        def run() -> None:
            with contextlib.suppress(SimulatedOutageError, breaker.rejection):
                guarded()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        if not self._entered.wait(PATIENCE_S):
            raise AnsweredError("n/a: calls run in a row")

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._leave.set()
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


class Crowd(NamedTuple):
    """Of the callers that came at once: how many ran, ran together, and were rejected."""

    ran: int
    together: int
    rejected: int


def crowd(breaker: Breaker, callers: int) -> Crowd:
    """Let so many threads call at once.

    Each stays inside until all the others are inside or rejected, so that none comes too late.
    """
    guard = threading.Lock()
    barrier, everyone = threading.Barrier(callers), threading.Event()
    inside = ran = together = rejected = 0

    def note(entered: bool) -> None:
        nonlocal inside, ran, together, rejected
        with guard:
            inside, ran, rejected = inside + entered, ran + entered, rejected + (not entered)
            together = max(together, inside)
            if ran + rejected == callers:
                everyone.set()

    def work() -> None:
        nonlocal inside
        note(True)
        if not everyone.wait(PATIENCE_S / 2):
            everyone.set()  # the others wait for us: let them come one by one
        with guard:
            inside -= 1

    guarded = breaker.guard(work)

    def run() -> None:
        barrier.wait()
        try:
            guarded()
        except breaker.rejection:
            note(False)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(callers)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2 * PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return Crowd(ran, together, rejected)


async def cancel_inside(breaker: Breaker) -> None:
    """Make a guarded call that never ends, and cancel it."""

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(breaker.guard(wait_for_ever)())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])


async def crowd_async(breaker: Breaker, callers: int) -> int:
    """Let so many tasks call at once; how many run."""
    ran = 0

    async def work() -> None:
        nonlocal ran
        ran += 1
        await asyncio.sleep(0.05)

    guarded = breaker.guard(work)
    await asyncio.gather(*(guarded() for _ in range(callers)), return_exceptions=True)
    return ran
