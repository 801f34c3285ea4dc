"""What does `with` a breaker cost around a block that does nothing?

Totals are compared: the floor is a class in Python whose `__enter__` and `__exit__` do nothing.
`breaker.attempt()` returns an object that holds what admission gave; `with breaker:` has to keep it
in a context variable, which is what makes it dearer. circuitbreaker's never rejects, hence its
figure. Reported only.
"""

from __future__ import annotations

import contextlib

from bench import rivals
from bench.harness import Bench
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
FLOOR = "Python class, empty"
STATEMENT = "with x: pass"


class Empty:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def suite(b: Bench) -> None:
    b.case(FLOOR, Empty(), STATEMENT)
    b.case("contextlib.nullcontext", contextlib.nullcontext(), STATEMENT)
    breaker = CircuitBreaker("bench")
    package = "memguard-native"
    b.case("memguard, attempt()", breaker, "with x.attempt(): pass", package=package)
    b.case("memguard", breaker, STATEMENT, package=package)
    for peer, context in rivals.each(b, "context"):
        x, statement = context()
        b.case(peer.name, x, statement, package=peer.package)
    b.yardstick = FLOOR
