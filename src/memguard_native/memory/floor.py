"""The retained floor: memory that is not given back, and whether it grows as a leak does.

A window is cut into 12 blocks. The floor of a block is the least that was in use in it or in any
later one: what a request, a cache that expires or a garbage collection frees again is not in it. A
leak raises the floor in a line. Whatever else raises it does so in a jump, in stairs, in a wave, or
slower and slower, and how far that is from a line tells it apart, if only the window is longer than
the rise. So fast growth is believed after a short window and slow growth after a long one: nothing
that is healthy grows fast for long.

Pure functions on arrays. MB is 2**20 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memguard_native.memory.minutes import HISTORY_MINUTES, Column
from memguard_native.memory.slopes import median, pairwise_slopes, quantile

BLOCKS = 12
MINUTES_PER_HOUR = 60.0

_QUARTER = BLOCKS // 4
_HALF = BLOCKS // 2
_NEW_HIGH_IN_HISTORY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How evenly memory must grow, how fast and for how long, to be called a leak."""

    window_minutes: int
    least_rate: float
    """In thresholds: 1 is the rate that is tolerated. The median of the slopes between any two
    blocks must reach it."""
    scatter: float
    """How far any block may be from the straight line through the floor, as a part of the growth.
    More for scales that are to find leaks in bursts and under noise."""
    bend: float
    """The same for the cubic through the floor: what bends is a ramp, a wave or a warm-up, while
    noise and steps do not bend it. This is the rule that tells most of them apart."""
    upward_bend: float | None = None
    """The same where it bends upwards, default as `bend`: growth that gets faster is no warm-up."""
    least_steps: float = 4.5
    """How many even steps the growth must be worth, G**2 / sum(step**2): 1 is a single jump, 11 a
    line, and stairs of lazy loads have 2 to 4."""
    least_last_quarter: float = 0.6
    """How fast the last quarter must grow, as a part of the mean: what has ended is no leak."""
    least_halves: float = 0.0
    """The same for each half: growth in one of them only is a ramp."""
    new_high: float = 0.02
    """How far the end must be above all but the last two blocks, as a part of the growth: a wave
    that comes back is not."""
    hold: tuple[int, int] = (5, 8)
    """Of the newest so many verdicts (the second) so many (the first) must agree: one minute of
    luck is not enough."""
    counts_private: bool = False
    """Whether fragmentation is looked for: private memory, of which malloc keeps much free."""
    near_windows: float = 2.0
    """The limit is near if it can be reached within so many windows."""


# One row was found best, and nothing depends on it sharply, by leaving out one program at a time of
# those in tests/traces: bench/suites/detector.py. In order: the first that agrees names the rate.
SCALES = (
    # A machine is full within the hour. There is no time to be choosy.
    Scale(
        window_minutes=42,
        least_rate=55.0,
        scatter=0.13,
        bend=0.13,
        least_last_quarter=0.3,
        hold=(3, 4),
    ),
    # Longer than data that is loaded within the first hour.
    Scale(window_minutes=80, least_rate=9.0, scatter=0.06, bend=0.025),
    # Longer than caches that fill, and ramps of traffic, of that height.
    Scale(window_minutes=130, least_rate=3.6, scatter=0.06, bend=0.03),
    # The same for growth that is slow: here healthy caches take hours.
    Scale(
        window_minutes=180,
        least_rate=1.0,
        scatter=0.10,
        bend=0.035,
        upward_bend=0.06,
        counts_private=True,
    ),
    # Faster growth may be less even by then, because of bursts and of load.
    Scale(window_minutes=180, least_rate=3.0, scatter=0.14, bend=0.09),
    # A wave of load that nobody reports has come round: what is higher than before has stayed.
    Scale(
        window_minutes=300,
        least_rate=1.0,
        scatter=0.15,
        bend=0.13,
        least_steps=5.0,
        least_last_quarter=0.3,
        least_halves=0.4,
        new_high=0.05,
    ),
    Scale(
        window_minutes=360,
        least_rate=1.0,
        scatter=0.20,
        bend=0.15,
        least_steps=5.0,
        least_last_quarter=0.3,
        least_halves=0.4,
        new_high=0.05,
    ),
)

# Applied only where the limit would be reached within that time: then there is nothing to wait for.
LIMIT_SCALE = Scale(
    window_minutes=12,
    least_rate=1.0,
    scatter=0.10,
    bend=0.05,
    hold=(3, 4),
    near_windows=1.0,
)


class FloorGrowth(NamedTuple):
    """The growth of a floor that passed every test."""

    rate_mb_per_hour: float
    """The median of the slopes between any two blocks."""
    rate_low_mb_per_hour: float
    """Their 5th percentile."""
    rate_high_mb_per_hour: float
    """Their 95th percentile."""
    grown_mb: float
    """From the first block to the last."""
    floor_mb: float
    """The last block."""


class Refusal(NamedTuple):
    """Why a window was not called a leak: the first rule that it failed."""

    rule: str
    found: float
    limit: float


def judge_floor(
    values: Column, scale: Scale, threshold_mb_per_hour: float
) -> FloorGrowth | Refusal:
    """Judge the last `scale.window_minutes` of `values`: MB, one per minute, NaN if not known.

    What is before them is the history, which counts as far as 6 hours back. A block without any
    sample, or less of `values` than the window, is refused.
    """
    window = scale.window_minutes
    minima = _block_minima(values, window)
    if minima is None or np.isnan(minima).any():
        return Refusal("samples in every block", 0.0, 1.0)
    floor = np.minimum.accumulate(minima[::-1])[::-1]
    grown = float(floor[-1] - floor[0])
    if grown <= 0:
        return Refusal("growth", grown, 0.0)
    slopes = np.sort(pairwise_slopes(floor, _block_starts(window) / MINUTES_PER_HOUR))
    rate = quantile(slopes, 0.5)
    least_rate = scale.least_rate * threshold_mb_per_hour
    if rate < least_rate:
        return Refusal("rate", rate, least_rate)
    # What is sampled in the midst of a sawtooth has a floor that is up to one step of it too high,
    # and for hours more and more so if the two have nearly the same rhythm.
    movement = _movement(values[-window:])
    if grown <= movement:
        return Refusal("movement of a minute", grown, movement)
    for rule, found, limit, fits in _shape(minima, floor, grown, scale):
        if not fits:
            return Refusal(rule, found, limit)
    before = _highest_before(values, window)
    least_end = before + _NEW_HIGH_IN_HISTORY * grown
    if floor[-1] <= least_end:
        return Refusal("new high in history", float(floor[-1]), least_end)
    low, high = quantile(slopes, 0.05), quantile(slopes, 0.95)
    return FloorGrowth(rate, low, high, grown, float(floor[-1]))


def _shape(
    minima: Column, floor: Column, grown: float, scale: Scale
) -> Iterator[tuple[str, float, float, bool]]:
    """Each rule of the shape: its name, what was found, the limit, and whether it is kept."""
    steps = np.diff(floor)
    even_steps = float(grown**2 / (steps**2).sum())
    yield "steps", even_steps, scale.least_steps, even_steps >= scale.least_steps
    mean = grown / (BLOCKS - 1)
    last = float(floor[-1] - floor[-1 - _QUARTER]) / _QUARTER / mean
    yield "last quarter", last, scale.least_last_quarter, last >= scale.least_last_quarter
    first_half = float(floor[_HALF - 1] - floor[0]) / (_HALF - 1) / mean
    second_half = float(floor[-1] - floor[_HALF - 1]) / _HALF / mean
    slower = min(first_half, second_half)
    yield "halves", slower, scale.least_halves, slower >= scale.least_halves
    above = float(floor[-1] - minima[:-2].max()) / grown
    yield "new high", above, scale.new_high, above > scale.new_high
    scatter, bend, upward = _deviation(floor)
    yield "scatter", scatter / grown, scale.scatter, scatter <= scale.scatter * grown
    allowed = scale.bend if scale.upward_bend is None or not upward else scale.upward_bend
    yield "bend", bend / grown, allowed, bend <= allowed * grown


def _deviation(floor: Column) -> tuple[float, float, bool]:
    """How far from their straight line the blocks are, how far their cubic is, and whether that
    bends upwards: all fitted by least squares.
    """
    constant_and_line, parabola_and_cubic = _POLYNOMIALS[:, :2], _POLYNOMIALS[:, 2:]
    residuals = floor - constant_and_line @ (constant_and_line.T @ floor)
    bends = parabola_and_cubic.T @ floor
    curve = parabola_and_cubic @ bends
    return float(np.abs(residuals).max()), float(np.abs(curve).max()), bool(bends[0] > 0)


def _orthonormal_polynomials() -> NDArray[np.float64]:
    """Columns: constant, line, parabola (its ends upwards) and cubic over the blocks."""
    powers = np.vander(np.linspace(-1.0, 1.0, BLOCKS), 4, increasing=True)
    basis, _ = np.linalg.qr(powers)
    signed: NDArray[np.float64] = basis * np.sign(basis[-1])
    return signed


_POLYNOMIALS = _orthonormal_polynomials()


def _block_minima(values: Column, window: int) -> Column | None:
    """The least of each block of the last `window` minutes, NaN if it has none; None if there are
    fewer minutes.
    """
    if len(values) < window:
        return None
    minima: Column = np.fmin.reduceat(values[-window:], _block_starts(window))
    return minima


def _movement(values: Column) -> float:
    """How far memory moves from one sample to the next, in the median."""
    return median(np.abs(np.diff(values[~np.isnan(values)])))


@lru_cache(maxsize=16)
def _block_starts(window: int) -> NDArray[np.intp]:
    return np.linspace(0, window, BLOCKS + 1).round().astype(np.intp)[:-1]


def _highest_before(values: Column, window: int) -> float:
    """The highest block minimum before the window, in blocks of its length; -inf without one."""
    block = window // BLOCKS
    count = (min(len(values), HISTORY_MINUTES) - window) // block
    if count < 1:
        return -np.inf
    end = len(values) - window
    minima = np.fmin.reduceat(values[end - count * block : end], np.arange(0, count * block, block))
    return -np.inf if np.isnan(minima).all() else float(np.nanmax(minima))
