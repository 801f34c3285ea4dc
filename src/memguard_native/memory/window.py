"""The window rule: memory that grows faster than a limit over the newest samples.

Pure: samples in, a state out; no clock, no thread. The rate is the growth from the oldest to the
newest sample of the window by the time that really passed between the two, in unrounded bytes: 12
samples at 60 s span 11 minutes, not 12, and whole megabytes over two samples would read as 30 MB/h.
There is no verdict before the window is full and spans enough time. The alert is raised once, and
cleared below 80 % of the limit, so that a rate close to it does not ring every minute.

The rule is quick and simple, and wrong on every process that warms up: read an alert as a notice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from memguard_native.memory.alert import MemoryState
from memguard_native.memory.sample import BYTES_PER_MB, MemorySample

_NS_PER_SECOND = 1e9
_SECONDS_PER_HOUR = 3600.0
_CLEAR_BELOW = 0.8

# Of the time that a full window spans when every sample is in time. It is less after samples that
# were taken by hand, and a rate over less time says little.
_LEAST_SPAN = 0.9


@dataclass(frozen=True, slots=True)
class Growth:
    """How fast memory grew between two samples."""

    signal: str
    """What grew: "heap" (CPython's arenas and malloc in use), "private" where those are not known,
    or "rss"."""
    rate_mb_per_hour: float
    """Negative where it shrank. 1 MB = 2**20 bytes."""
    span: float
    """Seconds between the two samples."""


def growth_between(oldest: MemorySample, newest: MemorySample) -> Growth | None:
    """None if no time passed, or no signal is known at both ends."""
    span = (newest.monotonic_ns - oldest.monotonic_ns) / _NS_PER_SECOND
    if span <= 0:
        return None
    for signal, first, last in (
        ("heap", _heap_bytes(oldest), _heap_bytes(newest)),
        ("private", oldest.private_bytes, newest.private_bytes),
        ("rss", oldest.rss_bytes, newest.rss_bytes),
    ):
        if first is not None and last is not None:
            rate = (last - first) / BYTES_PER_MB / (span / _SECONDS_PER_HOUR)
            return Growth(signal, rate, span)
    return None


def _heap_bytes(sample: MemorySample) -> int | None:
    """The nearest thing to the heap that the original watched; as old figures of malloc tell
    nothing of a window, only fresh ones count.
    """
    arenas, malloc = sample.python_arena_bytes, sample.malloc_in_use_bytes
    if arenas is None or malloc is None or sample.malloc_age_ns:
        return None
    return arenas + malloc


class WindowRule:
    """The newest `window` samples and what they say. One thread at a time.

    `interval` is the time between two samples in seconds, `threshold_mb_per_hour` the limit.
    """

    def __init__(self, *, interval: float, window: int, threshold_mb_per_hour: float) -> None:
        self._samples: deque[MemorySample] = deque(maxlen=window)
        self._least_span = _LEAST_SPAN * (window - 1) * interval
        self._threshold_mb_per_hour = threshold_mb_per_hour
        self.state = MemoryState.learning
        self.growth: Growth | None = None

    @property
    def samples(self) -> tuple[MemorySample, ...]:
        """Oldest first."""
        return tuple(self._samples)

    def add(self, sample: MemorySample) -> None:
        """Take the next sample; one that knows neither signal says nothing and is left out."""
        if sample.private_bytes is None and sample.rss_bytes is None:
            return
        self._samples.append(sample)
        self.growth = self._judgeable_growth()
        if self.growth is not None:
            self.state = self._judge(self.growth.rate_mb_per_hour)

    def _judgeable_growth(self) -> Growth | None:
        if len(self._samples) < (self._samples.maxlen or 0):
            return None
        growth = growth_between(self._samples[0], self._samples[-1])
        return growth if growth is not None and growth.span >= self._least_span else None

    def _judge(self, rate_mb_per_hour: float) -> MemoryState:
        limit = self._threshold_mb_per_hour
        if self.state is MemoryState.alert:
            limit *= _CLEAR_BELOW
            return MemoryState.steady if rate_mb_per_hour < limit else MemoryState.alert
        return MemoryState.alert if rate_mb_per_hour > limit else MemoryState.steady
