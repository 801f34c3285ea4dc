"""A row of scores: which figures it has, and under which names they stand in a table."""

from __future__ import annotations

from collections.abc import Sequence

from bench.detector.scoring import CLASS_NAMES, Score
from bench.harness import Bench

PRECISION = "precision"
RECALL = "recall"
F1 = "F1"
FALSE_ALERTS = "false alerts per healthy hour"
MEAN_DELAY = "mean delay, a miss being the rest of its trace, min"


def median_delay(least: int) -> str:
    return f"delay at {CLASS_NAMES[least]} MB/h, min"


def p90_delay(least: int) -> str:
    return f"p90 of delay at {CLASS_NAMES[least]} MB/h, min"


def record(
    b: Bench, case: str, score: Score, package: str | None = None, *, is_drawn: bool = True
) -> None:
    """The row of a detector; a figure that there is nothing to count for is left empty.

    `is_drawn`: as a point of the plane, which needs its mean delay.
    """
    figures = {
        PRECISION: score.precision,
        RECALL: score.recall,
        F1: score.f1,
        FALSE_ALERTS: score.false_alerts_per_healthy_hour,
        MEAN_DELAY: score.mean_delay if is_drawn else None,
        **{median_delay(least): score.median_delay(least) for least in CLASS_NAMES},
        **{p90_delay(least): score.p90_delay(least) for least in CLASS_NAMES},
    }
    for metric, value in figures.items():
        if value is not None:
            b.record(case, metric, value, package=package)


def record_spread(b: Bench, case: str, scores: Sequence[Score]) -> None:
    """Two rows: the worst and the best of each figure that has a binding goal."""
    for name, worst in (("worst", True), ("best", False)):
        for metric, found, less_is_worse in (
            (PRECISION, [one.precision for one in scores], True),
            (RECALL, [one.recall for one in scores], True),
            (FALSE_ALERTS, [one.false_alerts_per_healthy_hour for one in scores], False),
        ):
            known = [value for value in found if value is not None]
            pick = min if worst is less_is_worse else max
            b.record(f"{case}, {name}", metric, pick(known), package="memguard-native")
