"""How memory went, kept for a picture or a sparkline: bounded, whatever the number of samples.

MB is 2**20 bytes, NaN is what is not known. When it is full every second point is dropped, and from
then on only every second sample is taken: a picture has no more columns anyway.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from memguard_native.memory.sample import BYTES_PER_MB, MemorySample

_NS_PER_MINUTE = 60e9
# 32 bytes each: 0.5 MB. Ten times the columns of a picture, so that thinning is not seen.
_MAX_POINTS = 16_384


class Series:
    """Points of some samples; all arrays are of one length, oldest first."""

    def __init__(self, max_points: int = _MAX_POINTS) -> None:
        self.minutes = array("d")
        """Since the zero of the monotonic clock."""
        self.private_mb = array("d")
        """Private memory; the resident set where that is not known."""
        self.live_mb = array("d")
        """Private memory without what malloc keeps for later; NaN without malloc's figures."""
        self.numbers = array("q")
        """Of the samples: how many came before."""
        self._max_points = max_points
        self._every = 1
        self._seen = 0
        self._count = 0

    def __len__(self) -> int:
        return len(self.minutes)

    def add(self, sample: MemorySample) -> None:
        """Take a sample; one that knows neither private memory nor a resident set is left out."""
        number = self._count
        self._count += 1
        private = sample.rss_bytes if sample.private_bytes is None else sample.private_bytes
        if private is None:
            return
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        if len(self) == self._max_points:
            self._thin()
            if (self._seen - 1) % self._every:
                return
        self.minutes.append(sample.monotonic_ns / _NS_PER_MINUTE)
        self.private_mb.append(private / BYTES_PER_MB)
        live = float("nan")
        if sample.malloc_free_bytes is not None:
            live = (private - sample.malloc_free_bytes) / BYTES_PER_MB
        self.live_mb.append(live)
        self.numbers.append(number)

    def minute_of(self, number: int) -> float:
        """When the sample with this number was taken, or the nearest after it that was kept.

        Raises IndexError: there is no point.
        """
        return self.minutes[min(bisect_left(self.numbers, number), len(self) - 1)]

    def _thin(self) -> None:
        self.minutes = self.minutes[::2]
        self.private_mb = self.private_mb[::2]
        self.live_mb = self.live_mb[::2]
        self.numbers = self.numbers[::2]
        self._every *= 2
