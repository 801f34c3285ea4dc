"""`Detector`: samples in, a verdict out: is this process leaking?

Once a minute, or with each sample where these are rarer, it judges the retained floor (`floor.py`)
of live memory without what the load takes, of private memory for fragmentation, and of GPU memory,
on every scale; a growth that enough of the newest verdicts agree on is a leak. A trend of the last
hour is a suspicion, and no more than that.

Pure: no clock, no thread. One thread at a time. A step takes 0.2 ms: bench/suites/detector_step.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from memguard_native.memory.floor import (
    BLOCKS,
    LIMIT_SCALE,
    MINUTES_PER_HOUR,
    SCALES,
    FloorGrowth,
    Refusal,
    Scale,
    judge_floor,
    measure_floor,
)
from memguard_native.memory.load_correction import memory_per_load, without_load
from memguard_native.memory.minutes import Column, MinuteSeries
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.slopes import mann_kendall_z, rate_of_medians, theil_sen

SIGNALS = ("live", "private", "gpu")

# A block of fewer samples has a chance minimum and no floor.
_LEAST_SAMPLES_PER_BLOCK = 3
# Measured over recorded leaks: 0.98 of them have such a trend within the hour, and so has every
# third healthy process. Mann-Kendall: by chance once in a hundred.
_TREND_MINUTES = 60
_TREND_HOURS = np.arange(_TREND_MINUTES) / MINUTES_PER_HOUR
_TREND_Z = 2.326
# What is not seen for so long is over.
_CLEAR_MINUTES = 30
_LONGEST_HOLD = max(scale.hold[1] for scale in SCALES)
# At least so much of the private growth must be memory that malloc keeps free to be fragmentation.
_LEAST_FREE_SHARE = 0.5


class Leak(NamedTuple):
    """A growth that the detector believes in."""

    signal: str
    """What grows: "live", "private" (fragmentation) or "gpu"."""
    window_minutes: int
    growth: FloorGrowth
    near_limit: bool
    """Whether the limit may be reached so soon that it was believed sooner."""


class Detector:
    """Judges the memory of one process.

    Args:
        threshold_mb_per_hour: the growth that is tolerated.
        warm_up_minutes: after the start, that no window may begin in. Short, because warm-up that
            does not grow like a leak is told by its shape.
        interval: seconds between samples; a scale whose blocks hold fewer than 3 is off.
        minute_s: seconds that stand for a minute, 60 but in tests.
    """

    def __init__(
        self,
        *,
        threshold_mb_per_hour: float,
        warm_up_minutes: float,
        interval: float = 60.0,
        minute_s: float = 60.0,
    ) -> None:
        self.series = MinuteSeries(minute_s)
        self._threshold = threshold_mb_per_hour
        self._warm_up_minutes = warm_up_minutes
        per_minute = minute_s / interval
        self._scales = [scale for scale in SCALES if _is_fine_enough(scale, per_minute)]
        self._verdicts = 0
        self._votes: dict[tuple[Scale, str], deque[int]] = {}
        self._last_candidate: int | None = None
        self._last_trend: int | None = None
        self.leak: Leak | None = None
        """The leak that is believed in; its growth is measured anew while it is seen."""
        self.trend_mb_per_hour: float | None = None
        """The trend of the last hour while it is suspicious, else None; measured anew likewise."""
        self.per_load_mb = 0.0
        """MB that a unit of load takes."""
        self.said: tuple[tuple[Scale, str, FloorGrowth | Refusal], ...] = ()
        """What each scale said of each signal last: its growth, or the first rule that it fails.
        Replaced as a whole, so any thread may read it."""

    @property
    def is_learning(self) -> bool:
        """Whether no scale can say anything yet."""
        shortest = min((scale.window_minutes for scale in self._scales), default=np.inf)
        return self.series.minute + 1 < shortest + self._warm_up_minutes

    def add(self, sample: MemorySample, *, room_mb: float | None = None) -> bool:
        """Take the next sample; True if it began a minute, and so was judged.

        `room_mb`: from the memory that is in use to the limit, where there is one.
        """
        if not self.series.add(sample):
            return False
        self._judge(room_mb)
        return True

    def believe(self, leak: Leak) -> None:
        """Believe in a leak that somebody else has proved, until it is over."""
        self.leak = leak
        self._last_candidate = self.series.minute

    def forget(self) -> None:
        """Believe in no leak any more, and want it proved anew: memory was given back."""
        self._votes.clear()
        self.leak = None

    def restart_trimmed(self) -> None:
        """malloc gave memory back, so memory from before does not compare with what comes."""
        self._votes.clear()
        self._last_candidate = self._last_trend = 0
        self.series.restart_trimmed()

    def examine(self) -> Iterator[tuple[Scale, str, FloorGrowth | Refusal]]:
        """What each scale says of each signal now; nothing before the first sample."""
        signals = self._signals() if self.series.minutes else {}
        for scale in (*self._scales, LIMIT_SCALE):
            for signal, values in signals.items():
                if signal == "private":
                    if scale.counts_private:
                        yield scale, signal, self._examine_private(scale, values)
                else:
                    yield scale, signal, judge_floor(values, scale, self._threshold)

    def _judge(self, room_mb: float | None) -> None:
        # Votes are counted by verdicts and not by minutes: with a sample every two minutes there
        # are no more than four verdicts in eight of these, and five would never agree.
        self._verdicts += 1
        believed: Leak | None = None
        self.said = tuple(self.examine())
        for scale, signal, growth in self.said:
            if isinstance(growth, Refusal):
                continue
            near = signal != "gpu" and self._reaches_limit_soon(scale, growth, room_mb)
            if not near and (scale is LIMIT_SCALE or self._is_warming_up(scale)):
                continue
            self._last_candidate = self.series.minute
            votes = self._votes.setdefault((scale, signal), deque(maxlen=_LONGEST_HOLD))
            votes.append(self._verdicts)
            wanted, newest = LIMIT_SCALE.hold if near else scale.hold
            oldest = self._verdicts - newest
            if believed is None and sum(vote > oldest for vote in votes) >= wanted:
                believed = Leak(
                    self._true_signal(signal, scale, growth), scale.window_minutes, growth, near
                )
        if believed is not None:
            self.leak = believed
        elif self.leak is not None and self._still_grows(self.leak.signal):
            self._last_candidate = self.series.minute
        elif self._is_over(self._last_candidate):
            self.leak = None
        self._find_trend()

    def _still_grows(self, signal: str) -> bool:
        """A leak once proved goes on while the floor rises, in whatever shape: it may have become
        less even, or slower than the scale that found it asks for.
        """
        values = self._signals().get(signal)
        growth = None if values is None else measure_floor(values, _CLEAR_MINUTES)
        return growth is not None and growth.rate_mb_per_hour > self._threshold

    def _signals(self) -> dict[str, Column]:
        live, load = self.series.column("live"), self.series.column("load")
        self.per_load_mb = 0.0 if np.isnan(load[-1]) else memory_per_load(live, load)
        found = {"live": without_load(live, load, self.per_load_mb)}
        if not np.isnan(self.series.column("malloc_free")[-1]):
            found["private"] = self.series.column("private")
        if not np.isnan(self.series.column("gpu")[-1]):
            found["gpu"] = self.series.column("gpu")
        return found

    def _examine_private(self, scale: Scale, private: Column) -> FloorGrowth | Refusal:
        growth = judge_floor(private, scale, self._threshold)
        if isinstance(growth, Refusal):
            return growth
        free_rate = self._free_rate(scale)
        # Else it is the high water of live memory that is not even enough to be called a leak.
        least = _LEAST_FREE_SHARE * growth.rate_mb_per_hour
        if not free_rate >= least:  # NaN, too: malloc's figures are there for a few minutes only
            return Refusal("growth of what malloc keeps free", free_rate, least)
        load = self.series.column("load")
        if self.per_load_mb:
            corrected = without_load(private, load, self.per_load_mb)
            return judge_floor(corrected, scale, self._threshold)
        return growth

    def _free_rate(self, scale: Scale) -> float:
        return rate_of_medians(self.series.column("malloc_free"), scale.window_minutes)

    def _true_signal(self, signal: str, scale: Scale, growth: FloorGrowth) -> str:
        """Once trimmed, live memory is private memory, and so may be growing by fragmentation."""
        if signal != "live" or not self.series.is_trimmed:
            return signal
        is_free = self._free_rate(scale) >= _LEAST_FREE_SHARE * growth.rate_mb_per_hour
        return "private" if is_free else signal

    def _is_warming_up(self, scale: Scale) -> bool:
        return self.series.minute + 1 < scale.window_minutes + self._warm_up_minutes

    def _reaches_limit_soon(self, scale: Scale, growth: FloorGrowth, room_mb: float | None) -> bool:
        if room_mb is None:
            return False
        room_from_peak = room_mb - self.peak_above_mb()
        minutes = room_from_peak / growth.rate_high_mb_per_hour * MINUTES_PER_HOUR
        return minutes < scale.near_windows * scale.window_minutes

    def peak_above_mb(self) -> float:
        """How far the highest private memory of the last hour is above that of now."""
        recent = self.series.column("private")[-_TREND_MINUTES:]
        if not len(recent):
            return 0.0
        return float(np.nanmax(recent) - recent[-1])

    def floor_below_mb(self, window_minutes: int) -> float:
        """How far the least private memory of a window's last block is below that of now."""
        recent = self.series.column("private")[-max(1, window_minutes // BLOCKS) :]
        if not len(recent):
            return 0.0
        return float(recent[-1] - np.nanmin(recent))

    def _find_trend(self) -> None:
        live = self.series.column("live")[-_TREND_MINUTES:]
        if len(live) == _TREND_MINUTES:
            slope = theil_sen(live, _TREND_HOURS)
            if slope > self._threshold and mann_kendall_z(live) > _TREND_Z:
                self._last_trend = self.series.minute
                self.trend_mb_per_hour = slope
        if self._is_over(self._last_trend):
            self.trend_mb_per_hour = None

    def _is_over(self, last_seen: int | None) -> bool:
        return last_seen is None or self.series.minute - last_seen >= _CLEAR_MINUTES


def _is_fine_enough(scale: Scale, samples_per_minute: float) -> bool:
    # A tenth less, because a sampler is never quite in time.
    least = 0.9 * _LEAST_SAMPLES_PER_BLOCK
    return scale.window_minutes / BLOCKS * samples_per_minute >= least
