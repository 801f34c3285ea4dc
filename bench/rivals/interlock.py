"""interlock-cb: `@breaker` for functions and coroutine functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interlock import CircuitBreaker, CircuitOpenError, Config

from bench import rivals


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    # It trips by rate only, so what never trips is a window that never holds enough calls.
    config = Config(minimum_number_of_calls=rivals.NEVER)
    guarded: Callable[..., Any] = CircuitBreaker(name="bench", config=config)(function)
    return guarded


closed_async = closed


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    config = Config(wait_duration_in_open=rivals.HOUR_S)
    guarded = CircuitBreaker(name="bench-open", config=config)(rivals.fail)
    rivals.open_by_failures(guarded, CircuitOpenError)
    return guarded, CircuitOpenError, None
