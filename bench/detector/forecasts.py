"""Whether the limit is hit between the earliest and the latest time of a forecast.

The traces have no limit, so there is one pretended: the highest private memory of the next 1 to 3
hours. From the alert on, every quarter of an hour, each leak is asked when it will be reached; when
it was is in the trace. What is found on the alert's own data is no forecast of it: only later rows
tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bench.detector.traces import Trace, load, load_without_load
from bench.detector.verdicts import new_detector
from memguard_native.memory.alert import Forecast
from memguard_native.memory.findings import expect_limit
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import BYTES_PER_MB

HORIZONS_MINUTES = (60, 90, 120, 150, 180)
_EVERY_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Told:
    """A forecast, and when the limit was really reached."""

    forecast: Forecast
    true_seconds: float

    @property
    def covers(self) -> bool:
        forecast = self.forecast
        return forecast.earliest_seconds <= self.true_seconds <= forecast.latest_seconds

    @property
    def width(self) -> float:
        """The latest by the earliest time."""
        earliest = self.forecast.earliest_seconds
        return self.forecast.latest_seconds / earliest if earliest > 0 else float("inf")


def coverage(told: Sequence[Told]) -> float:
    """The share of the forecasts whose interval covers what came."""
    return statistics.fmean(one.covers for one in told)


def median_width(told: Sequence[Told]) -> float:
    return statistics.median(one.width for one in told)


def forecasts(trace: Trace) -> Iterator[Told]:
    """All that can be held against the rest of the trace."""
    detector = new_detector()
    raised: int | None = None
    for number, sample in enumerate(trace.samples):
        detector.add(sample)
        if detector.leak is None or number < trace.onset:
            continue
        raised = number if raised is None else raised
        if (number - raised) % _EVERY_MINUTES:
            continue
        for minutes in HORIZONS_MINUTES:
            if number + minutes >= len(trace.samples):
                break
            later = trace.private_mb[number : number + minutes + 1]
            room_mb = float(later.max() - later[0])
            if room_mb > 0:
                limit = MemoryLimit(round(later.max() * BYTES_PER_MB), "config")
                forecast = expect_limit(detector, limit, room_mb)
                assert forecast is not None  # there is a leak
                yield Told(forecast, float(np.argmax(later)) * 60.0)


@cache
def of_folder(folder: Path, with_load: bool) -> tuple[Told, ...]:
    """Those of all its leaks."""
    read = load(folder) if with_load else load_without_load(folder)
    return tuple(told for trace in read if trace.leaks for told in forecasts(trace))
