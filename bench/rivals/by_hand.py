"""What people write before they look for a library: a closure with a counter.

Here to check the harness: its figures are known.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from bench import rivals

UNSUPPORTED = {"time_window": "knows no rates"}


class RejectedError(Exception):
    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class Breaker:
    def __init__(self, failure_threshold: int, reset_timeout: float = rivals.HOUR_S) -> None:
        self.failure_threshold = failure_threshold
        self.reset_timeout = reset_timeout
        self.failures = 0
        self.open_until = 0.0

    def admit(self) -> None:
        if self.failures >= self.failure_threshold:
            left = self.open_until - time.monotonic()
            if left > 0.0:
                raise RejectedError(left)

    def failed(self) -> None:
        self.failures += 1
        if self.failures >= self.failure_threshold:
            self.open_until = time.monotonic() + self.reset_timeout

    def __enter__(self) -> None:
        self.admit()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.failures = 0
        elif issubclass(kind, Exception):
            self.failed()


def _decorate(breaker: Breaker, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        breaker.admit()
        try:
            result = function(*args, **kwargs)
        except Exception:
            breaker.failed()
            raise
        breaker.failures = 0
        return result

    return wrapper


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    return _decorate(Breaker(rivals.NEVER), function)


def closed_async(function: Callable[..., Any]) -> Callable[..., Any]:
    breaker = Breaker(rivals.NEVER)

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        breaker.admit()
        try:
            result = await function(*args, **kwargs)
        except Exception:
            breaker.failed()
            raise
        breaker.failures = 0
        return result

    return wrapper


def context() -> tuple[object, str]:
    return Breaker(rivals.NEVER), "with x: pass"


def opened() -> tuple[Callable[..., Any], type[BaseException], None]:
    guarded = _decorate(Breaker(5), rivals.fail)
    rivals.open_by_failures(guarded, RejectedError)
    return guarded, RejectedError, None
