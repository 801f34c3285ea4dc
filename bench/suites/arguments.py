"""What does the decorator add to `g(1, b=2)`, a call with a positional and a named argument?

Wrappers in Python pack both into a tuple and a dict; ours hands on the caller's array.
"""

from __future__ import annotations

import functools

from bench import rivals
from bench.harness import Bench
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
STATEMENT = "x(1, b=2)"


def noop(a: int, b: int = 0) -> None:
    pass


def suite(b: Bench) -> None:
    b.case("bare call", noop, STATEMENT)
    b.case("trampoline", _core.trampoline(noop), STATEMENT)
    b.case("memguard", CircuitBreaker("bench")(noop), STATEMENT, package="memguard-native")
    b.case("functools.partial", functools.partial(noop), STATEMENT)
    for peer, closed in rivals.each(b, "closed"):
        b.case(peer.name, closed(noop), STATEMENT, package=peer.package)
    b.yardstick = "trampoline"
    for denominator, limit, goal in (
        ("trampoline", 1.25, "G1"),
        ("functools.partial", 1.0, "G2"),
        ("circuitbreaker", 1 / 50, "G3"),
        ("pybreaker", 1 / 70, "G3"),
        ("interlock-cb", 1 / 200, "G3"),
    ):
        b.budget("memguard", over="bare call", ratio_to=denominator, at_most=limit, goal=goal)
