"""How often is the verdict "this leaks" right, and how soon, on programs it was not tuned on?

24 recorded programs with other mechanisms and other shapes of load, picked to be hard. The goals
are those of `detector`, told and not binding: of 12 leaks and 12 healthy programs each one weighs
8 %.
"""

from __future__ import annotations

from bench.detector import tables, traces, verdicts
from bench.detector.scoring import Score
from bench.harness import Bench
from bench.suites.detector import LOADS, OURS, record_rivals

GROUP = "detector"


def suite(b: Bench) -> None:
    for with_load, suffix in LOADS.items():
        case = OURS + suffix
        score = Score(verdicts.outcomes(traces.UNSEEN, with_load))
        tables.record(b, case, score, "memguard-native")
        b.budget(case, metric=tables.PRECISION, at_least=0.95, binding=False)
        b.budget(case, metric=tables.RECALL, at_least=0.95, binding=False)
        b.budget(case, metric=tables.FALSE_ALERTS, at_most=0.01, binding=False)
    record_rivals(b, traces.UNSEEN)
    b.plane(tables.FALSE_ALERTS, tables.MEAN_DELAY)
