"""What does the decorator add to `f()` where the breaker lies in memory that processes share?

A guard reads the same word as ever, wherever it lies; a call that is counted goes into this
process's own row of the shared windows.
"""

from __future__ import annotations

from bench import segments
from bench.harness import Bench
from bench.suites.call import noop
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "shared"

LOCAL = "memguard, local"
SHARED = "memguard, shared"
RULES: dict[str, dict[str, float]] = {
    "": {},
    ", count window": {"failure_rate": 0.5},
    ", time window of 60 s": {"failure_rate": 0.5, "time_window": 60.0},
}


def suite(b: Bench) -> None:
    b.case("bare call", noop)
    b.case("trampoline", _core.trampoline(noop))
    for window, rules in RULES.items():
        local = CircuitBreaker("bench", **rules)  # type: ignore[arg-type]
        b.case(LOCAL + window, local(noop), package="memguard-native")
        b.case(SHARED + window, segments.breaker(**rules)(noop), package="memguard-native")
    b.yardstick = LOCAL
    b.budget(SHARED, over="bare call", ratio_to=LOCAL, at_most=1.1, goal="G11")
