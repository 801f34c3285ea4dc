"""What does one breaker add to `f()` when two threads call through it at once?

Wall time shared out among the calls of both threads; not pinned to one core. Reported only: under
the interpreter lock it shows what a lock of the peer's own costs on top.
"""

from __future__ import annotations

from bench import rivals
from bench.harness import Bench
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker

GROUP = "breaker"
THREADS = 2


def noop() -> None:
    pass


def suite(b: Bench) -> None:
    b.case("bare call", noop, threads=THREADS)
    b.case("trampoline", _core.trampoline(noop), threads=THREADS)
    guarded = CircuitBreaker("bench")(noop)
    b.case("memguard", guarded, threads=THREADS, package="memguard-native")
    for peer, closed in rivals.each(b, "closed"):
        b.case(peer.name, closed(noop), threads=THREADS, package=peer.package)
    b.yardstick = "trampoline"
