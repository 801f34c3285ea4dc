"""What does the decorator add to `await f()`, under asyncio's own event loop?

Reported only: the gate for coroutines (G6) counts instructions, in the suite `instructions`,
because these nanoseconds depend much on how the interpreter was built.
"""

from __future__ import annotations

from bench import rivals
from bench.harness import Bench
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
STATEMENT = "await x()"


async def noop() -> None:
    pass


def suite(b: Bench) -> None:
    b.case("bare await", noop, STATEMENT, awaits=True)
    guarded = CircuitBreaker("bench")(noop)
    b.case("memguard", guarded, STATEMENT, awaits=True, package="memguard-native")
    for peer, closed in rivals.each(b, "closed_async"):
        b.case(peer.name, closed(noop), STATEMENT, awaits=True, package=peer.package)
    b.yardstick = "memguard"
