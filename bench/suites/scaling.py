"""How many calls a second pass one closed breaker in C++, by one thread and by two?

Without Python and its lock: a healthy call only reads the word that the threads share, so they do
not slow each other down. A counter that each call adds to is what they would share otherwise. Of
many turns, of all four in each, the 95th percentile: below it others had a core, and the few turns
above it show a core that ran faster for a moment, which two cores do not do together.
"""

from __future__ import annotations

from statistics import quantiles

from bench import native
from bench.harness import Bench

GROUP = "breaker"
METRIC = "million calls/s"
# Some 0.5 ms of one thread: less than its turn on a core where others wait for that, too.
CALLS = 250_000

CASES = {
    "memguard, 1 thread": ("word", 1),
    "memguard, 2 threads": ("word", 2),
    "shared counter, 1 thread": ("counter", 1),
    "shared counter, 2 threads": ("counter", 2),
}


def suite(b: Bench) -> None:
    turns = 50 if b.effort.quick else 200
    measured: dict[str, list[float]] = {name: [] for name in CASES}
    with native.compiled("closed_path") as program:
        for turn in range(turns):
            b.progress(f"turn {turn + 1} of {turns}")
            for name, (shared, threads) in CASES.items():
                measured[name].append(native.number(program, shared, threads, CALLS))
    for name, values in measured.items():
        calls = quantiles(values, n=20)[-1]
        package = "memguard-native" if name.startswith("memguard") else None
        b.record(name, METRIC, calls, package=package)
    b.budget(
        "memguard, 2 threads",
        ratio_to="memguard, 1 thread",
        at_least=1.6,
        metric=METRIC,
        goal="G10",
    )
