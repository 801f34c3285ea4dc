"""How long after a breaker opened in one process does another process see it?

Two processes in C++ with a core each; the other one does nothing but load the word, as each call
of its guards does. Every round is one change and one sight of it, with both readings of the clock.
The goal is for five failing calls, from before the first of them.
"""

from __future__ import annotations

from bench import native
from bench.harness import Bench

GROUP = "shared"

MINIMUM, MEDIAN, P99 = METRICS = ("minimum, ns", "median, ns", "99th percentile, ns")
FAILURES = "memguard, five failing calls"

CASES = {
    "a bare word": "word",
    "memguard, opened by hand": "trip",
    FAILURES: "failures",
}


def suite(b: Bench) -> None:
    rounds = 20_000 if b.effort.quick else 200_000
    with native.compiled("shared_seen") as program:
        for name, change in CASES.items():
            b.progress(name)
            package = "memguard-native" if name.startswith("memguard") else None
            found = native.numbers(program, change, rounds)
            for metric, value in zip(METRICS, found, strict=True):
                b.record(name, metric, value, package=package)
    b.budget(FAILURES, metric=MEDIAN, at_most=1000.0, goal="G11")
