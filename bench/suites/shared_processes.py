"""How many calls a second pass one shared breaker by each of two processes, and by each alone?

In C++, as in `scaling`, and by guards in Python. The slower of the two counts, and for both at once
the time from the first one's start to the last one's end. Of many bursts, alone and together in
turns, the 95th percentile: below it others had a core. In C++ the one that does not call spins
beside the other, or its core's sleep would make that one's faster; in Python it sleeps, so that row
is reported only.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from bench import callers, native, segments
from bench.harness import Bench

GROUP = "shared"
METRIC = "million calls/s of each"
# Some 0.5 ms of one process: less than its turn on a core where others wait for that, too.
CALLS = 250_000
# Of ten calls each, some 2 ms.
PASSES = 3_000

ALONE, TOGETHER = ", 1 process", ", 2 processes"
CASES = {"memguard": "word", "shared counter": "counter"}
IN_PYTHON = "memguard in Python"


def suite(b: Bench) -> None:
    bursts = 200 if b.effort.quick else 1000
    with native.compiled("shared_path") as program:
        for name, shared in CASES.items():
            b.progress(name)
            found = native.numbers(program, shared, bursts, CALLS)
            _record(b, name, found[::2], found[1::2])
    _record(b, IN_PYTHON, *_in_python(b, bursts // 4))
    b.budget(
        "memguard" + TOGETHER,
        ratio_to="memguard" + ALONE,
        at_least=0.9,
        metric=METRIC,
        goal="G11",
    )


def _in_python(b: Bench, turns: int) -> tuple[list[float], list[float]]:
    alone, together = [], []
    breaker = segments.breaker()
    with callers.running(2, breaker.name, segments.NAMESPACE) as both:
        for turn in range(turns):
            b.progress(f"{IN_PYTHON}, turn {turn + 1} of {turns}")
            rates = [callers.million_calls_per_s_of_each([one], PASSES) for one in both]
            alone.append(min(rates))
            together.append(callers.million_calls_per_s_of_each(both, PASSES))
    return alone, together


def _record(b: Bench, name: str, alone: Sequence[float], together: Sequence[float]) -> None:
    package = "memguard-native" if name.startswith("memguard") else None
    for processes, values in ((ALONE, alone), (TOGETHER, together)):
        b.record(name + processes, METRIC, quantiles(values, n=20)[-1], package=package)
