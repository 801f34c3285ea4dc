"""A circuit breaker inside a retry of tenacity, and outside of it.

    python examples/retry_tenacity.py

Inside, each try counts: an outage opens the circuit within one loop, which then ends at once or
waits until the circuit lets a call through. Outside, a loop counts once, and none starts while the
circuit is open.
"""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from memguard_native import CircuitBreaker, CircuitOpenError

usual_wait = wait_fixed(0.01)


def upstream(failures: int) -> Callable[[], str]:
    """A function that fails so many times and then answers."""

    def search() -> str:
        nonlocal failures
        failures -= 1
        print("  request ->", "found" if failures < 0 else "no route to host")
        if failures >= 0:
            raise ConnectionError("no route to host")
        return "found"

    return search


def wait(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    # "probing": somebody else finds out just now, which takes less than the longest it may take.
    if isinstance(error, CircuitOpenError) and error.reason != "probing":
        print(f"  rejected, waiting {error.retry_after:.1f} s")
        return error.retry_after
    return usual_wait(state)


def tell(title: str, call: Callable[[], str]) -> None:
    print(title)
    try:
        print("  =", call())
    except (ConnectionError, CircuitOpenError) as error:
        print("  =", type(error).__name__)


def main() -> None:
    on = retry_if_exception_type(ConnectionError)
    on_both = retry_if_exception_type((ConnectionError, CircuitOpenError))
    try_ten_times, try_twice = stop_after_attempt(10), stop_after_attempt(2)

    guarded = CircuitBreaker("stops", 3)(upstream(failures=99))
    tell("inside, giving up", retry(retry=on, wait=usual_wait, stop=try_ten_times)(guarded))
    guarded = CircuitBreaker("waits", 3, reset_timeout=0.3)(upstream(failures=3))
    tell("inside, waiting", retry(retry=on_both, wait=wait, stop=try_ten_times)(guarded))
    # reraise: else the breaker would see a RetryError.
    retried = retry(retry=on, wait=usual_wait, stop=try_twice, reraise=True)(upstream(failures=99))
    call = CircuitBreaker("outside", 2)(retried)
    for n in (1, 2, 3):
        tell(f"outside, call {n}", call)


if __name__ == "__main__":
    main()
