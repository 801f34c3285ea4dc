"""Who is told of a change of state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bench.corners.adapters import Breaker
from bench.corners.tools import PATIENCE_S
from bench.rivals import SimulatedOutageError, fail


class ListenerError(Exception):
    """What the listener of the probe raises."""


class _Logged(logging.Handler):
    """Counts what is logged of a ListenerError."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], ListenerError):
            self.times += 1


def raises(library: type[Breaker]) -> str:
    """listener raises"""
    if not library.listens:
        return "n/a: has no listeners"
    told = 0

    def listener() -> None:
        nonlocal told
        told += 1
        raise ListenerError

    logged = _Logged()
    logging.getLogger().addHandler(logged)
    breaker = library(listener=listener)
    if _error(breaker) is ListenerError:
        opens = "" if breaker.state() == "open" else ", stays closed"
        return f"replaces the caller's error{opens}"
    breaker.let_time_pass()
    _error(breaker)  # opens again: with the probe before it, three changes
    _wait_until(lambda: told >= 3)
    _wait_until(lambda: logged.times >= told)
    return {0: "swallowed", 1: "logged once"}.get(logged.times, "logged each time")


def _error(breaker: Breaker) -> type[BaseException] | None:
    try:
        breaker.guard(fail)()
    except (SimulatedOutageError, ListenerError, breaker.rejection) as error:
        return type(error)
    return None


def _wait_until(reached: Callable[[], bool]) -> None:
    """At most for PATIENCE_S: listeners may be called on a thread of their own."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
