"""circuitbreaker: `@CircuitBreaker(...)`, for functions and coroutine functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuitbreaker import CircuitBreaker, CircuitBreakerError

from bench import rivals

UNSUPPORTED = {"time_window": "knows no rates"}


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    guarded: Callable[..., Any] = CircuitBreaker(failure_threshold=rivals.NEVER)(function)
    return guarded


closed_async = closed


def context() -> tuple[object, str]:
    return CircuitBreaker(failure_threshold=rivals.NEVER), "with x: pass"


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    guarded = CircuitBreaker(recovery_timeout=int(rivals.HOUR_S))(rivals.fail)
    rivals.open_by_failures(guarded, CircuitBreakerError)
    return guarded, CircuitBreakerError, None
