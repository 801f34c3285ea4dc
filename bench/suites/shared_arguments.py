"""What does it add to `g(1, b=2)` where the breaker lies in memory that processes share?"""

from __future__ import annotations

from bench import segments
from bench.harness import Bench
from bench.suites.arguments import STATEMENT, noop
from bench.suites.shared_call import LOCAL, SHARED
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "shared"


def suite(b: Bench) -> None:
    b.case("bare call", noop, STATEMENT)
    b.case("trampoline", _core.trampoline(noop), STATEMENT)
    b.case(LOCAL, CircuitBreaker("bench")(noop), STATEMENT, package="memguard-native")
    b.case(SHARED, segments.breaker()(noop), STATEMENT, package="memguard-native")
    b.yardstick = LOCAL
    b.budget(SHARED, over="bare call", ratio_to=LOCAL, at_most=1.1, goal="G11")
