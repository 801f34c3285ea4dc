"""How long does the detector take once a minute?

Processor time of its thread, over a trace of seven hours that reports a load and leaks, so that
nothing is left out; the best of three passes. "When full": with all six hours to look back at.
"""

from __future__ import annotations

import statistics
import time

from bench.detector import traces
from bench.detector.verdicts import new_detector
from bench.harness import Bench
from memguard_native.memory.minutes import HISTORY_MINUTES

GROUP = "detector"

OURS = "memguard, all scales"
FULL = "memguard, all scales, when full"
MEAN = "ms per minute"

_TRACE = "leak_daytime_30"
_PASSES = 3


def suite(b: Bench) -> None:
    trace = next(one for one in traces.load(traces.DEVELOPMENT) if one.name == _TRACE)
    passes = [step_times_ms(trace) for _ in range(_PASSES)]
    b.record(OURS, MEAN, min(map(statistics.fmean, passes)), package="memguard-native")
    full = [statistics.fmean(one[HISTORY_MINUTES:]) for one in passes]
    b.record(FULL, MEAN, min(full), package="memguard-native")
    for case in (OURS, FULL):
        b.budget(case, metric=MEAN, at_most=1.0)


def step_times_ms(trace: traces.Trace) -> list[float]:
    """Of each sample."""
    detector = new_detector()
    taken = []
    for sample in trace.samples:
        before = time.thread_time_ns()
        detector.add(sample)
        taken.append((time.thread_time_ns() - before) / 1e6)
    return taken
