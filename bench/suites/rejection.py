"""How long does an open breaker take to reject, the caller's `try` and `except` included?

Totals are compared: a rejection replaces the call. The floor is a Python function that raises an
error with one attribute. Every peer opens by real failures at its own default threshold.
"""

from __future__ import annotations

from bench import rivals
from bench.harness import Bench
from memguard_native.breaker.breaker import CircuitBreaker
from memguard_native.errors import CircuitOpenError

GROUP = "breaker"
FLOOR = "Python raise, one attribute"
STATEMENT = "try: x()\nexcept Rejected: pass"


class OneAttributeError(Exception):
    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after


def raise_one_attribute() -> None:
    raise OneAttributeError(1.0)


def suite(b: Bench) -> None:
    b.case(FLOOR, raise_one_attribute, STATEMENT, Rejected=OneAttributeError)
    guarded = CircuitBreaker("bench", reset_timeout=rivals.HOUR_S)(rivals.fail)
    rivals.open_by_failures(guarded, CircuitOpenError)
    b.case("memguard", guarded, STATEMENT, Rejected=CircuitOpenError, package="memguard-native")
    for peer, opened in rivals.each(b, "opened"):
        call, error, before = opened()
        b.case(peer.name, call, STATEMENT, Rejected=error, before=before, package=peer.package)
    b.yardstick = FLOOR
    for denominator, limit in (
        ("circuitbreaker", 1 / 5),
        ("pybreaker", 1 / 12),
        (FLOOR, 1 / 2),
    ):
        b.budget("memguard", ratio_to=denominator, at_most=limit, goal="G7")
