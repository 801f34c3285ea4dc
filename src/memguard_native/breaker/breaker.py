"""`CircuitBreaker`: the face of the native breaker.

The state lives in one atomic word of the native core; a guarded call that is healthy only reads it.
Any thread or task may use a breaker at any time; no method blocks, and no lock is held while a
guarded function runs. Time is the monotonic clock, read natively, or a `ManualClock` in tests.
"""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Callable
from enum import StrEnum
from typing import ParamSpec, TypeVar, cast

from memguard_native import _core
from memguard_native.breaker.config import BreakerConfig
from memguard_native.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


class State(StrEnum):
    """Closed: calls run. Open: calls are rejected. Half-open: one probe runs, the rest wait."""

    closed = "closed"
    half_open = "half_open"
    open = "open"


class CircuitBreaker:
    """Stops calls to a dependency that fails, and lets a single probe find out when it is back.

    Use it as a decorator of functions, methods and coroutine functions; one breaker may guard any
    number of them. After `failure_threshold` failures in a row the circuit opens and calls raise
    `CircuitOpenError` at once. After `reset_timeout` seconds the next call is admitted as a probe:
    if it succeeds the circuit closes, if it fails it opens again, and if it does neither within
    `reset_timeout` seconds another caller may probe.

    A failure is an `Exception` that the guarded function raises. Cancellation, KeyboardInterrupt,
    SystemExit, GeneratorExit, RecursionError, MemoryError and the CircuitOpenError of another
    breaker are neutral. A result that arrives after the circuit changed its state is ignored.

    Args:
        name: 1 to 120 bytes of printable text. It shows in errors and metrics: no secrets.
        failure_threshold: failures in a row that open the circuit, from 1; default 5.
        reset_timeout: seconds that it stays open, from 0.001 to 30 days; default 60.
        clock: a `ManualClock`, for tests; default the monotonic clock.

    Raises:
        ConfigError: an argument is of the wrong type or out of its range.
    """

    def __init__(
        self,
        name: str,
        failure_threshold: int = 5,
        reset_timeout: float = 60.0,
        *,
        clock: _core.ManualClock | None = None,
    ) -> None:
        self._config = BreakerConfig(
            name=name, failure_threshold=failure_threshold, reset_timeout=reset_timeout
        )
        if clock is not None and not isinstance(clock, _core.ManualClock):
            raise ConfigError("clock", clock, "must be a ManualClock or None")
        self._core = _core.Breaker(
            name=name,
            failure_threshold=failure_threshold,
            reset_timeout=reset_timeout,
            max_reset_timeout=self._config.max_reset_timeout,
            probe_timeout=self._config.probe_timeout,
            clock=clock,
        )
        _living.add(self)

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._config.name

    @property
    def config(self) -> BreakerConfig:
        """The rules given at construction."""
        return self._config

    @property
    def state(self) -> State:
        """The state that a call would meet now. Reading it never uses up the probe."""
        return State(self._core.state())

    @property
    def failure_count(self) -> int:
        """Failures in a row; goes on counting through failed probes and is 0 after closing."""
        return self._core.failure_count()

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0.0 if one may now."""
        return self._core.retry_after()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard `function`: the decorator.

        Raises TypeError for what cannot be guarded as one call: classes, generator functions and
        asynchronous generator functions.
        """
        if isinstance(function, (staticmethod, classmethod)):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if isinstance(function, type):
            raise TypeError(f"cannot guard the class {function!r}: guard its methods")
        return self._guard(function)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` under this breaker; for a coroutine function, return its awaitable.

        Raises CircuitOpenError at once (an awaitable: when it is awaited) if the circuit is open.
        """
        return self._guard(function)(*args, **kwargs)

    def _guard(self, function: Callable[P, R]) -> _core.Guard[P, R]:
        if not callable(function):
            raise TypeError(f"cannot guard {function!r}: it is not callable")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"cannot guard the generator function {function!r}: "
                "guard the function that consumes it"
            )
        return _core.Guard(function, self._core, self, _is_coroutine_function(function))

    def trip(self) -> None:
        """Open the circuit now, for `reset_timeout` seconds."""
        self._core.trip()

    def reset(self) -> None:
        """Close the circuit now. Results of calls that are still running are ignored."""
        self._core.reset()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"


def _is_coroutine_function(function: object) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(type(function).__call__)


_living: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for breaker in _living:
        breaker._core.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
