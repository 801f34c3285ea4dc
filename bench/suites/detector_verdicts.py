"""How often is what an alert says beside "this leaks" right: its rate, its cause, its forecast?

Rates of steady leaks, within 20 %. Causes: the one that is labelled, or the other that is accepted.
Suspicion: within an hour of the onset. Forecasts: `bench.detector.forecasts`.
"""

from __future__ import annotations

from bench.detector import forecasts, traces, verdicts
from bench.detector.scoring import Score
from bench.harness import Bench
from bench.suites.detector import LOADS, OURS

GROUP = "detector"

RATES = "share: rate within 20 %"
CAUSES = "share: cause right"
SUSPICIONS = "share: leaks suspected within 60 min"
COVERAGE = "share: forecasts that cover the true time"
WIDTH = "latest by earliest time of a forecast, median"
FORECASTS = "forecasts"

OTHERS = "memguard, other programs"

_PROGRAMS = {traces.DEVELOPMENT: OURS, traces.UNSEEN: OTHERS}


def suite(b: Bench) -> None:
    for folder, name in _PROGRAMS.items():
        for with_load, load in LOADS.items():
            case = name + load
            b.progress(case)
            score = Score(verdicts.outcomes(folder, with_load))
            told = forecasts.of_folder(folder, with_load)
            for metric, value in (
                (RATES, score.right_rates),
                (CAUSES, score.right_causes),
                (SUSPICIONS, score.early_suspects),
                (COVERAGE, forecasts.coverage(told)),
                (WIDTH, forecasts.median_width(told)),
                (FORECASTS, float(len(told))),
            ):
                if value is not None:
                    b.record(case, metric, value, package="memguard-native")
            is_binding = folder == traces.DEVELOPMENT
            b.budget(case, metric=RATES, at_least=0.9, binding=is_binding)
            b.budget(case, metric=CAUSES, at_least=0.9, binding=is_binding)
            b.budget(case, metric=SUSPICIONS, at_least=0.95, binding=False)
            b.budget(case, metric=COVERAGE, at_least=0.8, binding=False)
            b.budget(case, metric=WIDTH, at_most=2.5, binding=False)
