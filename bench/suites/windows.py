"""What do rate rules add to `f()`: calls counted, counted in time, timed; short windows and long?

The length of a window must not matter: 60 seconds cost what an hour costs. interlock-cb is the
peer that counts over time as well.
"""

from __future__ import annotations

from bench import rivals
from bench.harness import Bench
from bench.suites.call import noop
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"

COUNT = "memguard, count window"
MINUTE = "memguard, time window of 60 s"
HOUR = "memguard, time window of 3600 s"
TIMED = "memguard, slow calls"
FINELY_TIMED = "memguard, slow calls from 10 ms"


def suite(b: Bench) -> None:
    b.case("bare call", noop)
    b.case("trampoline", _core.trampoline(noop))
    rules: dict[str, dict[str, float]] = {
        "memguard, no rates": {},
        COUNT: {"failure_rate": 0.5},
        MINUTE: {"failure_rate": 0.5, "time_window": 60.0},
        HOUR: {"failure_rate": 0.5, "time_window": 3600.0},
        TIMED: {"slow_rate": 0.5, "slow_call_duration": 1.0},
        FINELY_TIMED: {"slow_rate": 0.5, "slow_call_duration": 0.01},
    }
    for name, rule in rules.items():
        guarded = CircuitBreaker("bench", **rule)(noop)  # type: ignore[arg-type]
        b.case(name, guarded, package="memguard-native")
    for peer, time_window in rivals.each(b, "time_window"):
        for seconds in (60, 3600):
            name = f"{peer.name}, time window of {seconds} s"
            b.case(name, time_window(noop, seconds), package=peer.package)
    b.yardstick = "trampoline"
    b.budget(COUNT, over="bare call", ratio_to="trampoline", at_most=2.0, goal="G4")
    b.budget(MINUTE, over="bare call", ratio_to="trampoline", at_most=2.0, goal="G4")
    b.budget(TIMED, over="bare call", ratio_to="trampoline", at_most=3.0, goal="G4")
    b.budget(HOUR, over="bare call", ratio_to=MINUTE, at_most=1.1)
