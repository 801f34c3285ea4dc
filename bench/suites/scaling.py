"""How many calls a second pass one closed breaker in C++, by one thread and by two?

Without Python and its lock: a healthy call only reads the word that the threads share, so they do
not slow each other down. A counter that each call adds to is what they would share otherwise. The
best of several turns, of all four in each; judged on two cores that others may share.
"""

from __future__ import annotations

from bench import native
from bench.harness import Bench

GROUP = "breaker"
METRIC = "million calls/s"
# Some 2 ms of one thread: less than its turn on a core where others wait for that, too.
CALLS = 1_000_000

CASES = {
    "memguard, 1 thread": ("word", 1),
    "memguard, 2 threads": ("word", 2),
    "shared counter, 1 thread": ("counter", 1),
    "shared counter, 2 threads": ("counter", 2),
}


def suite(b: Bench) -> None:
    turns = 50 if b.effort.quick else 200
    best = dict.fromkeys(CASES, 0.0)
    with native.compiled("closed_path") as program:
        for turn in range(turns):
            b.progress(f"turn {turn + 1} of {turns}")
            for name, (shared, threads) in CASES.items():
                best[name] = max(best[name], native.number(program, shared, threads, CALLS))
    for name, calls in best.items():
        package = "memguard-native" if name.startswith("memguard") else None
        b.record(name, METRIC, calls, package=package)
    b.budget(
        "memguard, 2 threads",
        ratio_to="memguard, 1 thread",
        at_least=1.6,
        metric=METRIC,
        goal="G10",
    )
