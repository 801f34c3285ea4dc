"""The detector judged for many constants at once, and how constants are chosen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from bench.detector import traces, verdicts
from bench.detector.rules import SHIPPED, Constants, JudgedTrace
from bench.detector.scoring import Alarm, Verdict
from bench.detector.validation import AXES, QUICK_AXES, Grid
from tests.bench.recordings import recorded, rising

from memguard_native.memory.floor import SCALES
from memguard_native.memory.minutes import HISTORY_MINUTES

# Of each kind: load, fragmentation, a late leak, a sawtooth, and healthy ones.
SOME = (
    "leak_daytime_30", "leak_fragmentation_50", "leak_late_60", "leak_dict_15_gc_sawtooth",
    "leak_fast_1000", "ok_staircase", "ok_diurnal",
)  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_judging_at_once_raises_the_very_alarms_of_the_detector(name: str) -> None:
    (trace,) = (one for one in traces.load(traces.DEVELOPMENT) if one.name == name)
    expected = verdicts.judge(trace).alarms
    found = JudgedTrace(trace, [1.0]).verdict(SHIPPED).alarms
    assert [one.sample for one in found] == [one.sample for one in expected]
    assert [one.mb_per_hour for one in found] == pytest.approx(
        [one.mb_per_hour for one in expected]
    )


def test_shipped_constants_are_those_of_the_package() -> None:
    assert SHIPPED.scales == SCALES


def test_factors_scale_what_they_are_named_after_and_nothing_else() -> None:
    for ours, shipped in zip(Constants(bend=2.0, scatter=3.0).scales, SCALES, strict=True):
        assert ours.bend == 2.0 * shipped.bend
        assert ours.scatter == 3.0 * shipped.scatter
        assert ours.window_minutes == shipped.window_minutes
        assert ours.least_rate == shipped.least_rate


def test_no_window_is_longer_than_the_history() -> None:
    assert max(one.window_minutes for one in Constants(window=1.2).scales) == HISTORY_MINUTES


def test_tighter_constants_never_alarm_earlier_on_an_even_leak() -> None:
    judged = JudgedTrace(recorded(rising(60.0), "leak_steady_60"), [1.0])
    (alarm,) = judged.verdict(SHIPPED).alarms
    (later,) = judged.verdict(Constants(warm_up_minutes=60.0)).alarms
    assert later.sample - alarm.sample == 55


# --- choosing -------------------------------------------------------------------------------

FLAT = [100.0] * 60


class Invented:
    """A judged trace whose alarms are said by a function of the constants."""

    def __init__(self, name: str, alarms_at: Any) -> None:
        self.trace = recorded(FLAT, name, mb_per_hour=20.0)
        self._alarms_at = alarms_at

    def verdict(self, constants: Constants) -> Verdict:
        return Verdict(tuple(Alarm(sample) for sample in self._alarms_at(constants)))


def grid(*judged: Invented, axes: dict[str, tuple[float, ...]] | None = None) -> Grid:
    return Grid(judged, axes or {"bend": (0.6, 0.8, 1.0, 1.25, 1.6)})  # type: ignore[arg-type]


def cries_from(bend: float) -> Any:
    return lambda constants: [5] if constants.bend >= bend else []


def test_false_alerts_weigh_more_than_misses_and_misses_more_than_delay() -> None:
    # The leak is found at 1.0 and above, the healthy one alarms at 1.25 and above.
    chosen = grid(Invented("leak_a", cries_from(1.0)), Invented("ok_b", cries_from(1.25))).choose()
    assert chosen.bend == 0.8  # 1.0 has a neighbour that cries wolf


def test_point_amid_the_plateau_is_chosen_before_one_at_its_edge() -> None:
    def finds(constants: Constants) -> list[int]:
        return [30 - round(10 * constants.bend)] if constants.bend <= 1.25 else []

    # 1.25 is the fastest that finds it, and the last.
    assert grid(Invented("leak_a", finds)).choose().bend == 1.0


def test_of_two_that_find_the_same_the_faster_is_chosen() -> None:
    chosen = grid(Invented("leak_a", lambda constants: [round(30 / constants.bend)])).choose()
    assert chosen.bend == 1.25  # the edge of the grid cannot be chosen: half of it is unknown


def test_axis_of_one_step_stays_as_it_is() -> None:
    axes = {"bend": (0.8, 1.0, 1.25), "window": (1.0,)}
    chosen = grid(Invented("leak_a", cries_from(0.0)), axes=axes).choose()
    assert (chosen.bend, chosen.window) == (1.0, 1.0)


def test_program_that_is_left_out_has_no_say_in_its_own_constants() -> None:
    # All of it is about one healthy program: without it nothing speaks against loose constants.
    judged = [
        Invented("leak_a", lambda constants: [round(40 / constants.bend)]),
        Invented("ok_b", cries_from(1.25)),
    ]
    validated = grid(*judged).one_left_out()
    assert grid(*judged).choose().bend == 0.8
    assert [one.false_alarms for one in validated.outcomes] == [0, 1]
    assert sorted(one.bend for one in validated.chosen) == [0.8, 1.25]


def test_both_traces_of_a_program_are_left_out_together() -> None:
    judged = [Invented(name, cries_from(1.0)) for name in ("leak_dict_12", "leak_dict_15", "ok_a")]
    made = grid(*judged)
    assert made.programs == ["a", "dict"]
    assert made.one_left_out().chosen.total() == 2


@pytest.mark.parametrize("folds", [2, 3])
def test_each_trace_is_judged_once_in_every_division(folds: int) -> None:
    judged = [Invented(f"leak_{letter}", cries_from(0.0)) for letter in "abcdefg"]
    for validated in grid(*judged).shuffled(folds, times=4):
        assert [one.trace for one in validated.outcomes] == [one.trace for one in judged]
        assert validated.chosen.total() == folds


def test_divisions_are_drawn_anew_and_the_same_again_for_a_seed() -> None:
    drawn: list[list[str]] = []

    class Spy(Grid):
        def _choose(self, left_out: Collection[str]) -> tuple[int, ...]:
            drawn.append(sorted(left_out))
            return super()._choose(left_out)

    judged: Any = [Invented(f"leak_{letter}", cries_from(0.0)) for letter in "abcdef"]
    spy = Spy(judged, {"bend": (0.8, 1.0, 1.25)})
    list(spy.shuffled(2, times=3))
    once = list(drawn)
    drawn.clear()
    list(spy.shuffled(2, times=3))
    assert drawn == once
    assert len({tuple(fold) for fold in once}) > 2


def test_grid_has_as_many_points_as_is_told() -> None:
    judged: Any = []
    assert len(Grid(judged, AXES)) == 75
    assert len(Grid(judged, QUICK_AXES)) == 25
    assert all(1.0 in factors for factors in AXES.values())
