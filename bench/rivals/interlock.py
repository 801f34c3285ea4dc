"""interlock-cb: `@breaker` for functions and coroutine functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interlock import CircuitBreaker, CircuitOpenError, Config, WindowType

from bench import rivals


def _breaker(**config: Any) -> CircuitBreaker:
    # It trips by rate only, so what never trips is a window that never holds enough calls.
    return CircuitBreaker(
        name="bench", config=Config(minimum_number_of_calls=rivals.NEVER, **config)
    )


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    guarded: Callable[..., Any] = _breaker()(function)
    return guarded


closed_async = closed


def time_window(function: Callable[..., Any], seconds: int) -> Callable[..., Any]:
    window = {"window_type": WindowType.TIME_BASED, "window_size": seconds}
    guarded: Callable[..., Any] = _breaker(**window)(function)
    return guarded


def context() -> tuple[object, str]:
    return _breaker(), "with x: pass"


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    config = Config(wait_duration_in_open=rivals.HOUR_S)
    guarded = CircuitBreaker(name="bench-open", config=config)(rivals.fail)
    rivals.open_by_failures(guarded, CircuitOpenError)
    return guarded, CircuitOpenError, None
