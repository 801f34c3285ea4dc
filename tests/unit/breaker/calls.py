"""What the tests call through a breaker."""

from __future__ import annotations

from memguard_native import CircuitBreaker, CircuitOpenError


class Boom(Exception):
    """The failure of the dependency."""


def succeed() -> str:
    return "ok"


def fail() -> None:
    raise Boom("no answer")


def fail_times(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        try:
            breaker.call(fail)
        except Boom:
            continue
        raise AssertionError("the failure did not reach the caller")


class Suspend:
    """Awaiting it hands control to whoever drives the coroutine, and returns what that sends."""

    def __await__(self):
        return (yield "suspended")


def admitted(breaker: CircuitBreaker) -> bool:
    try:
        breaker.call(succeed)
    except CircuitOpenError:
        return False
    return True
