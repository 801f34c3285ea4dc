"""What does the decorator add to a call that raises and is counted, while the breaker is closed?

Reported only: an outage is short, and the caller's `try` and `except` dominate.
"""

from __future__ import annotations

from bench import rivals
from bench.harness import Bench
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
STATEMENT = "try: x()\nexcept Outage: pass"


def suite(b: Bench) -> None:
    outage = rivals.SimulatedOutageError
    b.case("bare call", rivals.fail, STATEMENT, Outage=outage)
    guarded = CircuitBreaker("bench", failure_threshold=rivals.NEVER)(rivals.fail)
    b.case("memguard", guarded, STATEMENT, Outage=outage, package="memguard-native")
    for peer, closed in rivals.each(b, "closed"):
        b.case(peer.name, closed(rivals.fail), STATEMENT, Outage=outage, package=peer.package)
    b.yardstick = "memguard"
