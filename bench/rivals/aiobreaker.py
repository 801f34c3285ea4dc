"""aiobreaker: pybreaker's fork for asyncio; `@breaker` for functions and coroutine functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from aiobreaker import CircuitBreaker, CircuitBreakerError

from bench import rivals

UNSUPPORTED = {"context": "has no context manager", "time_window": "knows no rates"}


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    guarded: Callable[..., Any] = CircuitBreaker(fail_max=rivals.NEVER)(function)
    return guarded


closed_async = closed


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    guarded = CircuitBreaker(timeout_duration=timedelta(seconds=rivals.HOUR_S))(rivals.fail)
    rivals.open_by_failures(guarded, CircuitBreakerError)
    return guarded, CircuitBreakerError, None
