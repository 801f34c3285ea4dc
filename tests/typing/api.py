"""What checkers must see: the guard has the function's own type. Run by mypy and pyright."""

from __future__ import annotations

from typing import assert_type

from memguard_native import CircuitBreaker, CircuitOpenError, ConfigError, MemguardError, State

breaker = CircuitBreaker("typing", failure_threshold=3, reset_timeout=1.5)


@breaker
def add(a: int, b: int = 0, *, scale: float = 1.0) -> float:
    return (a + b) * scale


@breaker
async def fetch(url: str) -> bytes:
    return url.encode()


class Service:
    @breaker
    def method(self, x: int) -> str:
        return str(x)

    @breaker
    async def later(self, x: int) -> str:
        return str(x)


assert_type(add(1, b=2, scale=0.5), float)
assert_type(Service().method(1), str)
assert_type(breaker.call(add, 1, b=2), float)
assert_type(breaker.state, State)
assert_type(breaker.retry_after, float)


async def awaited() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(await Service().later(1), str)
    assert_type(await breaker.call(fetch, "x"), bytes)


def errors(error: CircuitOpenError) -> None:
    assert_type(error.retry_after, float)
    assert_type(error.last_error, tuple[str, str] | None)
    base: MemguardError = error
    config: MemguardError = ConfigError("field", 1, "must be 2")
    print(base, config)
