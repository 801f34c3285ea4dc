"""The names of `circuitbreaker` 2.1 over memguard-native: change the import, keep the code.

Copy this file and write `from circuitbreaker_adapter import circuit` where it said
`from circuitbreaker import circuit`. What stays another is what circuitbreaker gets wrong: a single
probe runs after the timeout, late results and cancellations move nothing, and `call()` and `with`
reject as the decorator does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, ClassVar

import memguard_native
from memguard_native import CircuitOpenError as CircuitBreakerError

__all__ = ["CircuitBreaker", "CircuitBreakerError", "CircuitBreakerMonitor", "circuit"]

Expected = type[Exception] | Iterable[type[Exception]] | Callable[[type, BaseException], bool]


class CircuitBreaker:
    """circuitbreaker.CircuitBreaker: subclasses may set the four constants."""

    FAILURE_THRESHOLD: int = 5
    RECOVERY_TIMEOUT: float = 30
    EXPECTED_EXCEPTION: Any = Exception
    FALLBACK_FUNCTION: Callable[..., Any] | None = None

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_timeout: float | None = None,
        expected_exception: Expected | None = None,
        name: str | None = None,
        fallback_function: Callable[..., Any] | None = None,
    ) -> None:
        cls = type(self)
        self._threshold = failure_threshold or cls.FAILURE_THRESHOLD
        self._timeout = recovery_timeout or cls.RECOVERY_TIMEOUT
        self._expected = expected_exception or cls.__dict__.get("EXPECTED_EXCEPTION", Exception)
        self._fallback = fallback_function or cls.__dict__.get("FALLBACK_FUNCTION")
        self._name = name
        self._last_failure: BaseException | None = None
        self._made: memguard_native.CircuitBreaker | None = None

    @property
    def breaker(self) -> memguard_native.CircuitBreaker:
        """Ours, made when it is first used: by default it is named after the function."""
        if self._made is None:
            self._made = memguard_native.CircuitBreaker(
                self._name or "unnamed",
                self._threshold,
                self._timeout,
                failure_if=self._is_failure,
                fallback=self._fallback,
            )
        return self._made

    def _is_failure(self, error: BaseException) -> bool:
        expected = self._expected
        if isinstance(expected, type):
            failed = isinstance(error, expected)
        elif callable(expected):
            failed = expected(type(error), error)
        else:
            failed = isinstance(error, tuple(expected))
        if failed:
            self._last_failure = error
        return failed

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.decorate(function)

    def decorate(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self._name is None:
            self._name = getattr(function, "__qualname__", type(function).__name__)
        CircuitBreakerMonitor.register(self)
        return self.breaker(function)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.breaker.call(function, *args, **kwargs)

    def __enter__(self) -> None:
        self.breaker.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.breaker.__exit__(*exception)

    def reset(self) -> None:
        self.breaker.reset()

    def __str__(self) -> str:
        return self._name or "unnamed_CircuitBreaker"

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def state(self) -> str:
        return str(self.breaker.state)

    @property
    def opened(self) -> bool:
        return self.state == "open"

    @property
    def closed(self) -> bool:
        return self.state == "closed"

    @property
    def failure_count(self) -> int:
        return self.breaker.failure_count

    @property
    def last_failure(self) -> BaseException | None:
        return self._last_failure if self.failure_count else None

    @property
    def open_remaining(self) -> int:
        return ceil(self.breaker.retry_after)

    @property
    def open_until(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.open_remaining)

    @property
    def fallback_function(self) -> Callable[..., Any] | None:
        return self._fallback


class CircuitBreakerMonitor:
    """circuitbreaker.CircuitBreakerMonitor: what was decorated, by name."""

    circuit_breakers: ClassVar[dict[str, CircuitBreaker]] = {}

    @classmethod
    def register(cls, breaker: CircuitBreaker) -> None:
        cls.circuit_breakers[str(breaker)] = breaker

    @classmethod
    def get_circuits(cls) -> Iterable[CircuitBreaker]:
        return cls.circuit_breakers.values()

    @classmethod
    def get(cls, name: str) -> CircuitBreaker | None:
        return cls.circuit_breakers.get(name)

    @classmethod
    def get_open(cls) -> Iterable[CircuitBreaker]:
        return [breaker for breaker in cls.get_circuits() if breaker.opened]

    @classmethod
    def get_closed(cls) -> Iterable[CircuitBreaker]:
        return [breaker for breaker in cls.get_circuits() if breaker.closed]

    @classmethod
    def all_closed(cls) -> bool:
        return not cls.get_open()


def circuit(
    failure_threshold: Any = None,
    recovery_timeout: float | None = None,
    expected_exception: Expected | None = None,
    name: str | None = None,
    fallback_function: Callable[..., Any] | None = None,
    cls: type[CircuitBreaker] = CircuitBreaker,
) -> Callable[..., Any]:
    """`@circuit` or `@circuit(...)`."""
    if callable(failure_threshold):
        return cls().decorate(failure_threshold)
    return cls(failure_threshold, recovery_timeout, expected_exception, name, fallback_function)
