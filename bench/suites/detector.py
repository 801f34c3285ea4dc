"""How often is the verdict "this leaks" right, and how soon, on the traces it was developed on?

41 recorded programs, 21 of which leak; the rivals judge the same rows. "Cross-validated": each
program is judged by constants that were chosen on all others, among the 75 points of
`bench.detector.validation`; the spread is that of 20 divisions of the programs into five parts. The
curves show what more or less caution would cost: all bends, and all windows, of the detector times
a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from bench.detector import pictures, rivals, rules, tables, traces, validation, verdicts
from bench.detector.rules import Constants, JudgedTrace
from bench.detector.scoring import DELAY_GOALS, Outcome, Score, Verdict
from bench.detector.validation import Grid, Validated
from bench.harness import Bench

GROUP = "detector"
PICTURES = {
    "floor": pictures.draw_verdicts,
    "forecast": pictures.draw_forecast,
}

OURS = "memguard"
VALIDATED = "memguard, cross-validated"
WINDOW_RULE = 'memguard, rule="window"'
LOADS = {True: "", False: ", no load reported"}
CHOSEN = "share: folds that choose what is shipped"

_DIVISIONS, _FOLDS = 20, 5
_BENDS = (0.3, 0.5, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 3.0, 5.0)
_WINDOWS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
_QUICK_WINDOWS = (1.0,)


def suite(b: Bench) -> None:
    for with_load, suffix in LOADS.items():
        score = Score(verdicts.outcomes(traces.DEVELOPMENT, with_load))
        tables.record(b, OURS + suffix, score, "memguard-native")
    _validate(b)
    record_rivals(b, traces.DEVELOPMENT)
    b.plane(tables.FALSE_ALERTS, tables.MEAN_DELAY)
    _sweep(b)
    _declare_goals(b)


def record_others(b: Bench, folder: Path) -> None:
    """The scores on other programs, against the same goals, which are told and not binding."""
    for with_load, suffix in LOADS.items():
        case = OURS + suffix
        tables.record(b, case, Score(verdicts.outcomes(folder, with_load)), "memguard-native")
        b.budget(case, metric=tables.PRECISION, at_least=0.95, binding=False)
        b.budget(case, metric=tables.RECALL, at_least=0.95, binding=False)
        b.budget(case, metric=tables.FALSE_ALERTS, at_most=0.01, binding=False)
    record_rivals(b, folder)
    b.plane(tables.FALSE_ALERTS, tables.MEAN_DELAY)


def record_rivals(b: Bench, folder: Path) -> None:
    """A row for each, also for one that lacks its library; and one for our window rule."""
    read = traces.load(folder)
    tables.record(b, WINDOW_RULE, _score(read, rivals.by_window_rule), "memguard-native")
    for rival, judge in rivals.each():
        b.progress(rival.name)
        if judge is None:
            b.absent(rival.name, "not installed: scipy")
        else:
            tables.record(b, rival.name, _score(read, judge))


def _score(read: Sequence[traces.Trace], judge: Callable[[traces.Trace], Verdict]) -> Score:
    return Score([Outcome(trace, judge(trace)) for trace in read])


def _validate(b: Bench) -> None:
    b.progress("choosing among the points of the grid")
    grid = _grid(b.effort.quick)
    one_left_out = grid.one_left_out()
    divided = list(grid.shuffled(_FOLDS, _DIVISIONS))
    for with_load, suffix in LOADS.items():
        case = VALIDATED + suffix
        score = _score_of(one_left_out, with_load)
        tables.record(b, case, score, "memguard-native", is_drawn=False)
        scores = [_score_of(one, with_load) for one in divided]
        tables.record_spread(b, f"{case}: of {_DIVISIONS} divisions", scores)
    folds = one_left_out.chosen.total()
    b.record(VALIDATED, CHOSEN, one_left_out.chosen[rules.SHIPPED] / folds)
    b.record(OURS, CHOSEN, float(grid.choose() == rules.SHIPPED))


def _score_of(validated: Validated, with_load: bool) -> Score:
    half = len(validated.outcomes) // 2
    return Score(validated.outcomes[:half] if with_load else validated.outcomes[half:])


def _sweep(b: Bench) -> None:
    windows = _QUICK_WINDOWS if b.effort.quick else _WINDOWS
    for name, with_load, points in (
        ("bends", True, [Constants(bend=factor) for factor in _BENDS]),
        ("bends", False, [Constants(bend=factor) for factor in _BENDS]),
        ("windows", True, [Constants(window=factor) for factor in windows]),
    ):
        judged = _judged(with_load, b.effort.quick)
        scores = [
            Score([Outcome(one.trace, one.verdict(point)) for one in judged]) for point in points
        ]
        label = f"memguard, all {name} times {getattr(points[0], name[:-1]):g}"
        label += f" to {getattr(points[-1], name[:-1]):g}{LOADS[with_load]}"
        b.curve(
            label,
            [
                (score.false_alerts_per_healthy_hour or 0.0, score.mean_delay or 0.0)
                for score in scores
            ],
        )


def _declare_goals(b: Bench) -> None:
    for suffix in LOADS.values():
        case = VALIDATED + suffix
        b.budget(case, metric=tables.PRECISION, at_least=0.95)
        b.budget(case, metric=tables.RECALL, at_least=0.95)
        b.budget(case, metric=tables.FALSE_ALERTS, at_most=0.01)
        for least, minutes in DELAY_GOALS.items():
            b.budget(case, metric=tables.median_delay(least), at_most=minutes, binding=False)
    if not b.effort.quick:  # the coarse grid has fewer to choose from
        b.budget(OURS, metric=CHOSEN, at_least=1.0, binding=False)


@cache
def _grid(quick: bool) -> Grid:
    judged = [*_judged(True, quick), *_judged(False, quick)]
    return Grid(judged, validation.QUICK_AXES if quick else validation.AXES)


@cache
def _judged(with_load: bool, quick: bool) -> tuple[JudgedTrace, ...]:
    """With the windows of the grid and of the sweep. Those without a load are judged once."""
    axes = validation.QUICK_AXES if quick else validation.AXES
    factors = {*axes["window"], *(_QUICK_WINDOWS if quick else _WINDOWS)}
    if with_load:
        judged = tuple(JudgedTrace(one, factors) for one in traces.load(traces.DEVELOPMENT))
        _compare_with_the_detector(judged, with_load)
        return judged
    known = {one.trace: one for one in _judged(True, quick)}
    silent = traces.load_without_load(traces.DEVELOPMENT)
    judged = tuple(known.get(trace) or JudgedTrace(trace, axes["window"]) for trace in silent)
    _compare_with_the_detector(judged, with_load)
    return judged


def _compare_with_the_detector(judged: Sequence[JudgedTrace], with_load: bool) -> None:
    """What was chosen would mean nothing if it were chosen for other rules than the shipped ones.

    Raises RuntimeError: the two raise different alarms.
    """
    outcomes = verdicts.outcomes(traces.DEVELOPMENT, with_load)
    for one, outcome in zip(judged, outcomes, strict=True):
        ours = [alarm.sample for alarm in one.verdict(rules.SHIPPED).alarms]
        theirs = [alarm.sample for alarm in outcome.verdict.alarms]
        if ours != theirs:
            name = one.trace.name
            raise RuntimeError(f"bench.detector.rules alarms at {ours} in {name}, not at {theirs}")
