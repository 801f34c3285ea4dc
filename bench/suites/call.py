"""What does the decorator add to `f()`, a call of a function that does nothing?

Goals: at most 1.25x of the empty vectorcall trampoline, which is the floor for any wrapper made
in C, and no more than functools.partial.
"""

from __future__ import annotations

import functools

from bench import rivals
from bench.harness import Bench
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"


def noop() -> None:
    pass


def suite(b: Bench) -> None:
    b.case("bare call", noop)
    b.case("trampoline", _core.trampoline(noop))
    b.case("memguard", CircuitBreaker("bench")(noop), package="memguard-native")
    b.case("functools.partial", functools.partial(noop))
    for peer, closed in rivals.each(b, "closed"):
        b.case(peer.name, closed(noop), package=peer.package)
    b.yardstick = "trampoline"
    for denominator, limit, goal in (
        ("trampoline", 1.25, "G1"),
        ("functools.partial", 1.0, "G2"),
        ("circuitbreaker", 1 / 25, "G3"),
        ("pybreaker", 1 / 70, "G3"),
        ("interlock-cb", 1 / 200, "G3"),
    ):
        b.budget("memguard", over="bare call", ratio_to=denominator, at_most=limit, goal=goal)
