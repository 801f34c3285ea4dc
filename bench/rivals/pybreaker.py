"""pybreaker: `@breaker`; its asynchronous form needs tornado and is not the plain decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pybreaker import CircuitBreaker, CircuitBreakerError

from bench import rivals

UNSUPPORTED = {"closed_async": "guards tornado coroutines only", "time_window": "knows no rates"}


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    guarded: Callable[..., Any] = CircuitBreaker(fail_max=rivals.NEVER)(function)
    return guarded


def context() -> tuple[object, str]:
    return CircuitBreaker(fail_max=rivals.NEVER), "with x.calling(): pass"


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    guarded = CircuitBreaker(reset_timeout=rivals.HOUR_S)(rivals.fail)
    rivals.open_by_failures(guarded, CircuitBreakerError)
    return guarded, CircuitBreakerError, None
