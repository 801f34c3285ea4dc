"""The detector of the package with other constants, judged for all minutes of a trace at once.

Asking the detector itself for each point of a grid would take half an hour. Here its signals are
taken minute by minute, by its own code, and what its rules look at is computed for each window
once, as arrays over the minutes; a point of the grid is then a comparison of arrays. Written apart
from `memory.floor` and `memory.detector` on purpose: with the shipped constants both have to raise
the same alarms, which the suite checks on every trace.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.detector.scoring import Alarm, Verdict
from bench.detector.traces import Column, Trace
from bench.detector.verdicts import THRESHOLD_MB_PER_HOUR, WARM_UP_MINUTES
from memguard_native.memory.floor import BLOCKS, SCALES, Scale
from memguard_native.memory.load_correction import memory_per_load, without_load
from memguard_native.memory.minutes import HISTORY_MINUTES, MinuteSeries
from memguard_native.memory.slopes import rate_of_medians

Mask = NDArray[np.bool_]

_CLEAR_MINUTES = 30
_NEW_HIGH_IN_HISTORY = 0.1
_LEAST_FREE_SHARE = 0.5


@dataclass(frozen=True)
class Constants:
    """A point of the grid: the shipped constants, times these factors."""

    bend: float = 1.0
    scatter: float = 1.0
    window: float = 1.0
    warm_up_minutes: float = WARM_UP_MINUTES

    @property
    def scales(self) -> tuple[Scale, ...]:
        return tuple(map(self._scaled, SCALES))

    def _scaled(self, scale: Scale) -> Scale:
        upward = scale.upward_bend
        return replace(
            scale,
            window_minutes=min(HISTORY_MINUTES, round(scale.window_minutes * self.window)),
            bend=scale.bend * self.bend,
            upward_bend=None if upward is None else upward * self.bend,
            scatter=scale.scatter * self.scatter,
        )


SHIPPED = Constants()


@dataclass(frozen=True)
class Shape:
    """What the rules of a floor look at, one value per judged minute; NaN where none is known."""

    rate: Column
    steps: Column
    last_quarter: Column
    slower_half: Column
    new_high: Column
    new_high_in_history: Column
    scatter: Column
    bend: Column
    bends_upwards: Mask
    above_movement: Mask

    def fits(self, scale: Scale) -> Mask:
        upward = scale.bend if scale.upward_bend is None else scale.upward_bend
        fitting: Mask = (
            (self.rate >= scale.least_rate * THRESHOLD_MB_PER_HOUR)
            & (self.steps >= scale.least_steps)
            & (self.last_quarter >= scale.least_last_quarter)
            & (self.slower_half >= scale.least_halves)
            & (self.new_high > scale.new_high)
            & (self.scatter <= scale.scatter)
            & (self.bend <= np.where(self.bends_upwards, upward, scale.bend))
            & (self.new_high_in_history > _NEW_HIGH_IN_HISTORY)
            & self.above_movement
        )
        return fitting


class JudgedTrace:
    """A trace with what the rules look at, for the shipped windows times these factors."""

    def __init__(self, trace: Trace, window_factors: Collection[float]) -> None:
        self.trace = trace
        scales = [one for factor in window_factors for one in Constants(window=factor).scales]
        windows = {scale.window_minutes for scale in scales}
        private_windows = {scale.window_minutes for scale in scales if scale.counts_private}
        floors = _Floors(windows, private_windows)
        series = MinuteSeries()
        samples, minutes = [], []
        for number, sample in enumerate(trace.samples):
            if series.add(sample):
                floors.add(series)
                samples.append(number)
                minutes.append(series.minute)
        self._samples = np.array(samples)
        self._minutes = np.array(minutes)
        self._live = {window: floors.shape("live", window) for window in windows}
        self._private = {window: floors.private_shapes(window) for window in private_windows}
        self._grows_on = [
            floors.rate(signal, _CLEAR_MINUTES) > THRESHOLD_MB_PER_HOUR
            for signal in ("live", "private")
        ]

    def verdict(self, constants: Constants) -> Verdict:
        """The alarms that the detector would raise with these constants."""
        candidate, rates, is_private = self._judge(constants)
        believed = ~np.isnan(rates)
        alarms: list[Alarm] = []
        last_seen, grows_on = -np.inf, None
        for place in range(int(np.argmax(believed)), len(believed) if believed.any() else 0):
            minute = self._minutes[place]
            if candidate[place]:
                last_seen = minute
            if believed[place]:
                if grows_on is None:
                    alarms.append(Alarm(int(self._samples[place]), float(rates[place])))
                grows_on = self._grows_on[bool(is_private[place])]
            elif grows_on is not None and grows_on[place]:
                last_seen = minute
            elif minute - last_seen >= _CLEAR_MINUTES:
                grows_on = None
        return Verdict(tuple(alarms))

    def _judge(self, constants: Constants) -> tuple[Mask, Column, Mask]:
        """Where any scale agrees; the rate, of the first that believes, where one does; and whether
        that is of private memory.
        """
        candidate, is_private = np.zeros((2, len(self._minutes)), dtype=bool)
        rates = np.full(len(self._minutes), np.nan)
        for scale in constants.scales:
            for place, (fitting, rate) in enumerate(self._fitting(scale)):
                voting = fitting & (
                    self._minutes + 1 >= scale.window_minutes + constants.warm_up_minutes
                )
                candidate |= voting
                believed = voting & (self._votes(voting, scale.hold[1]) >= scale.hold[0])
                is_first = np.isnan(rates) & believed
                rates = np.where(is_first, rate, rates)
                is_private = np.where(is_first, place == 1, is_private)
        return candidate, rates, is_private

    def _fitting(self, scale: Scale) -> list[tuple[Mask, Column]]:
        live = self._live[scale.window_minutes]
        found = [(live.fits(scale), live.rate)]
        if scale.counts_private:
            private, corrected, free_rate = self._private[scale.window_minutes]
            fitting = private.fits(scale) & (free_rate >= _LEAST_FREE_SHARE * private.rate)
            found.append((fitting & corrected.fits(scale), corrected.rate))
        return found

    def _votes(self, voting: Mask, newest: int) -> NDArray[np.intp]:
        """How many of the newest judged minutes voted, this one included."""
        cumulated = np.concatenate([[0], np.cumsum(voting)])
        oldest = np.maximum(0, np.arange(len(voting)) - newest + 1)
        votes: NDArray[np.intp] = cumulated[1:] - cumulated[oldest]
        return votes


class _Floors:
    """Collects block minima minute by minute, and makes shapes of them."""

    def __init__(self, windows: Collection[int], private_windows: Collection[int]) -> None:
        own = {
            "live": {*windows, _CLEAR_MINUTES},
            "private": {*private_windows, _CLEAR_MINUTES},
            "corrected": private_windows,
        }
        self._rows: dict[tuple[str, int], list[Column]] = {
            (signal, window): [] for signal, found in own.items() for window in found
        }
        self._free_rates: dict[int, list[float]] = {window: [] for window in private_windows}

    def add(self, series: MinuteSeries) -> None:
        live, load = series.column("live"), series.column("load")
        private, free = series.column("private"), series.column("malloc_free")
        per_load = 0.0 if np.isnan(load[-1]) else memory_per_load(live, load)
        signals = {
            "live": without_load(live, load, per_load),
            "private": private if not np.isnan(free[-1]) else np.full_like(private, np.nan),
        }
        signals["corrected"] = without_load(signals["private"], load, per_load)
        for (signal, window), rows in self._rows.items():
            rows.append(_blocks(signals[signal], window))
        for window, rates in self._free_rates.items():
            # Dear, so only where it can matter: a floor that grows fast enough.
            grows = _rate(_floor(self._rows["private", window][-1][None, :BLOCKS]), window)
            matters = grows[0] >= THRESHOLD_MB_PER_HOUR
            rates.append(rate_of_medians(free, window) if matters else np.nan)

    def rate(self, signal: str, window: int) -> Column:
        return _rate(_floor(np.array(self._rows[signal, window])[:, :BLOCKS]), window)

    def shape(self, signal: str, window: int) -> Shape:
        rows = np.array(self._rows[signal, window])
        return _shape(rows[:, :BLOCKS], rows[:, BLOCKS], rows[:, BLOCKS + 1], window)

    def private_shapes(self, window: int) -> tuple[Shape, Shape, Column]:
        return (
            self.shape("private", window),
            self.shape("corrected", window),
            np.array(self._free_rates[window]),
        )


def _blocks(values: Column, window: int) -> Column:
    """The minima of the window's blocks, the highest block minimum before the window, and how far
    memory moves in a minute.
    """
    found = np.full(BLOCKS + 2, np.nan)
    if len(values) < window:
        return found
    recent = values[len(values) - window :]
    found[:BLOCKS] = np.fmin.reduceat(recent, _starts(window))
    known = recent[~np.isnan(recent)]
    if len(known) > 1:
        found[BLOCKS + 1] = np.median(np.abs(np.diff(known)))
    block = window // BLOCKS
    count = (len(values) - window) // block
    found[BLOCKS] = -np.inf
    if count:
        before = values[len(values) - window - count * block : len(values) - window]
        highest = np.fmax.reduce(np.fmin.reduce(before.reshape(count, block), axis=1))
        found[BLOCKS] = -np.inf if np.isnan(highest) else highest
    return found


def _starts(window: int) -> NDArray[np.intp]:
    return np.linspace(0, window, BLOCKS + 1).round().astype(np.intp)[:-1]


def _floor(minima: Column) -> Column:
    floor: Column = np.minimum.accumulate(minima[:, ::-1], axis=1)[:, ::-1]
    return np.where(np.isnan(minima).any(axis=1, keepdims=True), np.nan, floor)


def _rate(floor: Column, window: int) -> Column:
    first, second = np.triu_indices(BLOCKS, 1)
    starts = _starts(window)
    hours = (starts[second] - starts[first]) / 60.0
    rate: Column = np.median((floor[:, second] - floor[:, first]) / hours, axis=1)
    return rate


def _shape(minima: Column, before: Column, movement: Column, window: int) -> Shape:
    floor = _floor(minima)
    growth = floor[:, -1] - floor[:, 0]
    growth = np.where(growth > 0, growth, np.nan)
    mean = growth / (BLOCKS - 1)
    x = np.linspace(-1.0, 1.0, BLOCKS)
    line = np.polynomial.polynomial.polyfit(x, np.nan_to_num(floor).T, 1)
    cubic = np.polynomial.polynomial.polyfit(x, np.nan_to_num(floor).T, 3)
    straight = np.polynomial.polynomial.polyval(x, line)
    curved = np.polynomial.polynomial.polyval(x, cubic)
    first_half = (floor[:, 5] - floor[:, 0]) / 5 / mean
    second_half = (floor[:, -1] - floor[:, 5]) / 6 / mean
    return Shape(
        rate=_rate(floor, window),
        steps=growth**2 / (np.diff(floor, axis=1) ** 2).sum(axis=1),
        last_quarter=(floor[:, -1] - floor[:, -4]) / 3 / mean,
        slower_half=np.minimum(first_half, second_half),
        new_high=(floor[:, -1] - minima[:, :-2].max(axis=1)) / growth,
        new_high_in_history=(floor[:, -1] - before) / growth,
        scatter=np.abs(floor - straight).max(axis=1) / growth,
        bend=np.abs(curved - straight).max(axis=1) / growth,
        bends_upwards=cubic[2] > 0,
        above_movement=growth > movement,
    )
