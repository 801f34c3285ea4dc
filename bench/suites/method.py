"""What does the decorator add to `service.ask()`, a call of a method?

The trampoline and our guard are method descriptors: the interpreter passes `self` without
making a bound method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import rivals
from bench.harness import Bench
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
STATEMENT = "x.ask()"


def ask(self: object) -> None:
    pass


def service(method: Callable[..., Any]) -> object:
    return type("Service", (), {"ask": method})()


def suite(b: Bench) -> None:
    b.case("bare call", service(ask), STATEMENT)
    b.case("trampoline", service(_core.trampoline(ask)), STATEMENT)
    guarded = service(CircuitBreaker("bench")(ask))
    b.case("memguard", guarded, STATEMENT, package="memguard-native")
    for peer, closed in rivals.each(b, "closed"):
        b.case(peer.name, service(closed(ask)), STATEMENT, package=peer.package)
    b.yardstick = "trampoline"
    b.budget("memguard", over="bare call", ratio_to="trampoline", at_most=1.25, goal="G5")
