"""A circuit breaker inside a retry of stamina, and outside of it.

    python examples/retry_stamina.py

Inside, each try counts: an outage opens the circuit within one loop, which then ends at once or
waits until the circuit lets a call through. Outside, a loop counts once, and none starts while the
circuit is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import stamina

from memguard_native import CircuitBreaker, CircuitOpenError


def upstream(failures: int) -> Callable[[], Awaitable[str]]:
    """A coroutine function that fails so many times and then answers."""

    async def search() -> str:
        nonlocal failures
        failures -= 1
        print("  request ->", "found" if failures < 0 else "no route to host")
        if failures >= 0:
            raise ConnectionError("no route to host")
        return "found"

    return search


def wait_or_retry(error: Exception) -> bool | float:
    # "probing": somebody else finds out just now, which takes less than the longest it may take.
    if isinstance(error, CircuitOpenError) and error.reason != "probing":
        print(f"  rejected, waiting {error.retry_after:.1f} s")
        return error.retry_after
    return isinstance(error, (ConnectionError, CircuitOpenError))


async def tell(title: str, call: Callable[[], Awaitable[str]]) -> None:
    print(title)
    try:
        print("  =", await call())
    except (ConnectionError, CircuitOpenError) as error:
        print("  =", type(error).__name__)


async def main() -> None:
    stamina.instrumentation.set_on_retry_hooks([])  # it would log each retry
    quick = {"wait_initial": 0.01, "wait_jitter": 0.0}

    guarded = CircuitBreaker("stops", 3)(upstream(failures=99))
    await tell(
        "inside, giving up", stamina.retry(on=ConnectionError, attempts=10, **quick)(guarded)
    )
    guarded = CircuitBreaker("waits", 3, reset_timeout=0.3)(upstream(failures=3))
    await tell("inside, waiting", stamina.retry(on=wait_or_retry, attempts=10, **quick)(guarded))
    retried = stamina.retry(on=ConnectionError, attempts=2, **quick)(upstream(failures=99))
    call = CircuitBreaker("outside", 2)(retried)
    for n in (1, 2, 3):
        await tell(f"outside, call {n}", call)


if __name__ == "__main__":
    asyncio.run(main())
