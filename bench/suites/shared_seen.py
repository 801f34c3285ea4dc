"""How long after a breaker opened in one process does another process see it?

Two processes in C++ with a core each; the other one does nothing but load the word, as each call
of its guards does. Every round is one change and one sight of it, with both readings of the clock.
The goal is for a trip: by hand, and by the last of five failing calls, which opens. From before the
first of the five it takes longer, as the word of each is sent to the core that watches: reported.
Medians of turns that are spread over seconds, because the cores of a virtual machine move: at times
they lie so far apart that a bare word takes thrice as long.
"""

from __future__ import annotations

import statistics
import time

from bench import native
from bench.harness import Bench

GROUP = "shared"

MINIMUM, MEDIAN, P99 = ("minimum, ns", "median, ns", "99th percentile, ns")
BY_HAND = "memguard, opened by hand"
LAST = "memguard, the last of five failing calls"
FAILURES = "memguard, five failing calls"
CASES = {
    "a bare word": "word",
    BY_HAND: "trip",
    LAST: "fifth",
    FAILURES: "failures",
}
ROUNDS = 2000
PAUSE_S = 0.1


def suite(b: Bench) -> None:
    turns = 40 if b.effort.quick else 200
    measured: dict[str, list[list[float]]] = {name: [] for name in CASES}
    with native.compiled("shared_seen") as program:
        for turn in range(turns):
            b.progress(f"turn {turn + 1} of {turns}")
            for name, change in CASES.items():
                measured[name].append(native.numbers(program, change, ROUNDS))
            time.sleep(PAUSE_S)
    for name, found in measured.items():
        package = "memguard-native" if name.startswith("memguard") else None
        minima, medians, p99s = zip(*found, strict=True)
        b.record(name, MINIMUM, min(minima), package=package)
        b.record(name, MEDIAN, statistics.median(medians))
        b.record(name, P99, statistics.median(p99s))
    for name in (BY_HAND, LAST):
        b.budget(name, metric=MEDIAN, at_most=1000.0, goal="G11")
