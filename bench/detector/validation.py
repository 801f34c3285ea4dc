"""Constants chosen with programs left out, and the score on those that were left out.

The grid: all bends and all scatters of the scales times five factors each, all windows times three,
75 points. How good a point is counts over itself and its neighbours, one step along each axis: a
constant at the edge of what some recorded traces allow is wrong on the next program, one amid a
plateau is not. So only inner points can be chosen. First the traces with a false alert count, then
the leaks that were missed, then the delay, as a part of the goal for the leak's rate.

Both ways of judging a trace, with the load it reports and without, count alike.

How much hangs on the grid was looked at once: steps of 10 to 30 %, and five windows in place of
three. All ten of these grids had a precision of 0.95 or more; two, of five windows, missed one leak
more without its load, a recall of 0.90 in place of 0.95.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench.detector.rules import Constants, JudgedTrace
from bench.detector.scoring import DELAY_GOALS, Outcome

AXES: dict[str, tuple[float, ...]] = {
    "bend": (0.6, 0.8, 1.0, 1.25, 1.6),
    "scatter": (0.6, 0.8, 1.0, 1.25, 1.6),
    "window": (0.9, 1.0, 1.1),
}
# Without the axis that costs most.
QUICK_AXES = AXES | {"window": (1.0,)}

_Place = tuple[int, ...]


@dataclass(frozen=True)
class Validated:
    """What a cross-validation found."""

    outcomes: Sequence[Outcome]
    """Of every trace, with constants that were chosen without its program."""
    chosen: Counter[Constants]
    """How many folds chose what."""


class Grid:
    """The outcomes of many traces at every point, kept: choosing anew costs nothing.

    `judged` are the traces, in one or several ways of judging.
    """

    def __init__(self, judged: Sequence[JudgedTrace], axes: dict[str, tuple[float, ...]]) -> None:
        self._judged = judged
        self._axes = axes
        self._places = list(product(*(range(len(values)) for values in axes.values())))
        self._inner = [place for place in self._places if self._is_inner(place)]
        self.programs = sorted({one.trace.program for one in judged})

    def __len__(self) -> int:
        return len(self._places)

    def constants(self, place: _Place) -> Constants:
        values = zip(self._axes.items(), place, strict=True)
        return replace(Constants(), **{name: factors[step] for (name, factors), step in values})

    def choose(self, left_out: Collection[str] = ()) -> Constants:
        """The best inner point by the traces of all programs but those."""
        return self.constants(self._choose(left_out))

    def cross_validate(self, folds: Iterable[Collection[str]]) -> Validated:
        """`folds`: the programs that are left out, each program once."""
        outcomes: dict[int, Outcome] = {}
        chosen: Counter[Constants] = Counter()
        for fold in folds:
            place = self._choose(fold)
            chosen[self.constants(place)] += 1
            for number, one in enumerate(self._judged):
                if one.trace.program in fold:
                    outcomes[number] = self._outcomes[place][number]
        return Validated([outcomes[number] for number in sorted(outcomes)], chosen)

    def one_left_out(self) -> Validated:
        """Each program by the constants that all others chose."""
        return self.cross_validate([program] for program in self.programs)

    def shuffled(self, folds: int, times: int, seed: int = 1) -> Iterator[Validated]:
        """Cross-validations by so many folds of programs, drawn anew each time."""
        draw = random.Random(seed)
        for _ in range(times):
            programs = draw.sample(self.programs, len(self.programs))
            yield self.cross_validate(programs[start::folds] for start in range(folds))

    def _choose(self, left_out: Collection[str]) -> _Place:
        counted = np.array([one.trace.program not in left_out for one in self._judged])
        totals = {place: self._total(place, counted) for place in self._places}

        def rank(place: _Place) -> tuple[float, ...]:
            around = np.sum([totals[near] for near in self._around(place)], axis=0)
            false, missed, delay, found = around
            return false, missed, delay / max(found, 1.0)

        return min(self._inner, key=rank)

    def _total(self, place: _Place, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self._counts[place][counted].sum(axis=0)
        return total

    @cached_property
    def _outcomes(self) -> dict[_Place, list[Outcome]]:
        return {
            place: [Outcome(one.trace, one.verdict(self.constants(place))) for one in self._judged]
            for place in self._places
        }

    @cached_property
    def _counts(self) -> dict[_Place, NDArray[np.float64]]:
        return {
            place: np.array([_counted(outcome) for outcome in outcomes])
            for place, outcomes in self._outcomes.items()
        }

    def _is_inner(self, place: _Place) -> bool:
        return all(
            len(values) == 1 or 0 < step < len(values) - 1
            for step, values in zip(place, self._axes.values(), strict=True)
        )

    def _around(self, place: _Place) -> Iterator[_Place]:
        yield place
        for axis, values in enumerate(self._axes.values()):
            for step in (-1, 1) if len(values) > 1 else ():
                yield (*place[:axis], place[axis] + step, *place[axis + 1 :])


def _counted(outcome: Outcome) -> tuple[float, float, float, float]:
    """False alert, missed, delay as a part of its goal, found."""
    delay = outcome.delay
    return (
        float(outcome.false_alarms > 0),
        float(outcome.missed),
        0.0 if delay is None else delay / DELAY_GOALS[outcome.delay_class],
        float(delay is not None),
    )
