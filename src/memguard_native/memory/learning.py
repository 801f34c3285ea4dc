"""What a process learns of itself, minute by minute, to leave it to a successor.

Nothing is left before there is a verdict: a process that ends too early must not wipe out what the
one before it knew.

Pure: no clock, no thread, no I/O. MB is 2**20 bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from memguard_native.memory.floor import MINUTES_PER_HOUR, FloorGrowth
from memguard_native.memory.learnt import Learnt
from memguard_native.memory.load import RequestsByMinute, mb_per_1000_requests
from memguard_native.memory.minutes import HISTORY_MINUTES, Column, MinuteSeries

# Start-up is over when memory grows no faster than twice as fast as later, over so long; less than
# 1 MB is noise.
_CALM_MINUTES = 15
_FASTER = 2.0
_NOISE_MB = 1.0
# What lasts longer is no start-up.
_LONGEST_START_UP = 120
_RETAINED_MINUTES = 15


class StartUp(NamedTuple):
    """How the memory of a process started."""

    minutes: int
    """How long it took."""
    baseline_mb: float
    """Where it ended."""


def find_start_up(values: Column, rate_mb_per_hour: float) -> StartUp | None:
    """Args:
    values: MB, one per minute from the start of the process, NaN if not known.
    rate_mb_per_hour: how fast memory grows, or is tolerated to, when start-up is over.

    None: it is not over within 2 hours, or too little is known.
    """
    floor = np.fmin.accumulate(values[::-1])[::-1]
    allowed = _FASTER * rate_mb_per_hour * _CALM_MINUTES / MINUTES_PER_HOUR + _NOISE_MB
    growth = floor[_CALM_MINUTES:] - floor[:-_CALM_MINUTES]
    calm = np.flatnonzero(growth[: _LONGEST_START_UP + 1] <= allowed)
    if not len(calm):
        return None
    return StartUp(int(calm[0]), float(floor[calm[0]]))


class Learning:
    """Gathers what one process learns. One thread at a time.

    `threshold_mb_per_hour`: growth that is tolerated.
    """

    def __init__(self, threshold_mb_per_hour: float) -> None:
        self._threshold = threshold_mb_per_hour
        self._requests = RequestsByMinute()
        self._start_up: StartUp | None = None
        self._minute = -1
        self._sees_start = True

    def step(
        self,
        series: MinuteSeries,
        *,
        state: str,
        cause: str = "unknown",
        growth: FloorGrowth | None = None,
        window_minutes: int | None = None,
        per_load_mb: float = 0.0,
        requests: int | None = None,
    ) -> Learnt | None:
        """Take the verdict of a minute; what is to be left to a successor now, or None.

        Args:
            series: memory from the start of the process.
            state, cause: of the verdict; cause "unknown" without an alert.
            growth, window_minutes: of the leak, over its window; None without one.
            per_load_mb: what a unit of load takes; 0: nothing, or not known.
            requests: how many were served so far; None: they are not counted.
        """
        if series.minute < 0:
            return None
        if series.minute < self._minute:  # malloc was trimmed, and the minutes begin anew
            self._requests = RequestsByMinute()
            self._sees_start = False
        self._minute = series.minute
        self._requests.add(series.minute, requests)
        if state == "learning":
            return None
        rate = None if growth is None else growth.rate_mb_per_hour
        self._look_at_start(series, rate)
        per_1000 = None
        if rate is not None and window_minutes is not None:
            within = self._requests.within(window_minutes)
            per_1000 = mb_per_1000_requests(rate, window_minutes, within)
        start_up = self._start_up
        return Learnt(
            state=state,
            cause=cause,
            rate_mb_per_hour=rate,
            mb_per_1000_requests=per_1000,
            mb_per_load=per_load_mb or None,
            baseline_mb=None if start_up is None else start_up.baseline_mb,
            retained_mb=_retained(series),
            warm_up_minutes=None if start_up is None else start_up.minutes,
            requests=requests,
        )

    def _look_at_start(self, series: MinuteSeries, rate: float | None) -> None:
        # Anew with each verdict, because a rate tells where start-up ended; while it is in view.
        if self._sees_start and series.minute < HISTORY_MINUTES:
            tolerated = self._threshold if rate is None else max(rate, self._threshold)
            self._start_up = find_start_up(series.column("private"), tolerated)


def _retained(series: MinuteSeries) -> float | None:
    recent = series.column("private")[-_RETAINED_MINUTES:]
    least = float(np.fmin.reduce(recent))
    return None if math.isnan(least) else max(0.0, least)
