"""`MinuteSeries`: the memory of one process, one column per quantity and one row per minute.

Samples are folded into minutes, counted by the monotonic clock from the first one. A minute with
several samples keeps the one with the least live memory, because what matters is what is never
given back; a minute without is a row of NaN. All amounts are in MB (2**20 bytes).

Pure: no clock, no thread. numpy is imported with this module, so by `MemoryMonitor.start()` and not
by `import memguard_native`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from memguard_native.memory.sample import BYTES_PER_MB, MemorySample

Column = NDArray[np.float64]

# What the detector looks back at: memory of last night says nothing about a leak of today.
HISTORY_MINUTES = 360

_NS_PER_SECOND = 1e9
_COLUMNS = (
    "private",
    "malloc_free",
    "malloc_in_use",
    "python_arenas",
    "shared",
    "blocks",
    "threads",
    "gpu",
    "load",
)
_ROW = {name: row for row, name in enumerate(_COLUMNS)}


class MinuteSeries:
    """The newest 360 minutes. `minute_s`: how many seconds stand for one, 60 but in tests."""

    def __init__(self, minute_s: float = 60.0) -> None:
        self._minute_ns = minute_s * _NS_PER_SECOND
        self._table = np.full((len(_COLUMNS), HISTORY_MINUTES), np.nan)
        self._start_ns: int | None = None
        self._newest_live = np.nan
        self.minute = -1
        """The newest minute, from 0; -1 before the first sample."""
        self.is_trimmed = False
        """Whether malloc gave pages of its free memory back, which it goes on counting as free."""

    def add(self, sample: MemorySample) -> bool:
        """Take the next sample; True if it is the first of its minute.

        One without private memory or resident set says nothing, one from before the newest minute
        comes too late: both are left out.
        """
        row = _row_of(sample)
        if np.isnan(row[_ROW["private"]]):
            return False
        if self._start_ns is None:
            self._start_ns = sample.monotonic_ns
        # To the nearest: a sampler that is on time but for a few milliseconds must not fill one
        # minute twice and leave the next one empty. Not by round(), which rounds halves to even:
        # sampled every 30 s, minutes would hold one and three samples in turn.
        minute = math.floor((sample.monotonic_ns - self._start_ns) / self._minute_ns + 0.5)
        live = row[_ROW["private"]] - np.nan_to_num(row[_ROW["malloc_free"]])
        if minute < self.minute or (minute == self.minute and live >= self._newest_live):
            return False
        is_new = minute > self.minute
        self._advance(minute)
        self._table[:, -1] = row
        self._newest_live = live
        if live < 0:  # free memory that is not there: somebody else has trimmed
            self.is_trimmed = True
        return is_new

    def restart_trimmed(self) -> None:
        """Malloc gave memory back: what was before does not compare with what comes."""
        self._table[:] = np.nan
        self._start_ns = None
        self.minute = -1
        self.is_trimmed = True

    def _advance(self, minute: int) -> None:
        gap = min(minute - self.minute, HISTORY_MINUTES)
        if gap > 0:
            self._table[:, :-gap] = self._table[:, gap:]
            self._table[:, -gap:] = np.nan
            self.minute = minute

    @property
    def minutes(self) -> int:
        """How many minutes are there to look back at, from 0 to 360."""
        return min(self.minute + 1, HISTORY_MINUTES)

    def column(self, name: str) -> Column:
        """A quantity over those minutes, oldest first, NaN where it is not known: "private",
        "malloc_free", "malloc_in_use", "python_arenas", "shared" and "gpu" in MB, "live" (private
        memory without what malloc keeps free), "other" (without any of the other parts), "blocks",
        "threads", "load". A view or a copy: not to be written to.
        """
        if name == "live":
            return self._live()
        if name == "other":
            return self._other()
        known: Column = self._table[_ROW[name], HISTORY_MINUTES - self.minutes :]
        return known

    def _live(self) -> Column:
        private, free = self.column("private"), self.column("malloc_free")
        # malloc's figures can stop when they get too dear, or never be there. Half of a series
        # with and half without them would have a jump that no memory has made. After a trim each
        # free page that is used again would count twice.
        if self.minutes == 0 or np.isnan(free[-1]) or self.is_trimmed:
            return private
        return private - free

    def _other(self) -> Column:
        rest = self.column("private").copy()
        for name in ("malloc_free", "malloc_in_use", "python_arenas", "shared"):
            part = self.column(name)
            # For the same reason: what is not known now is in the rest for all the time.
            if self.minutes and not np.isnan(part[-1]):
                rest -= part
        return rest


def _row_of(sample: MemorySample) -> Column:
    private = sample.private_bytes
    fresh = sample.malloc_is_fresh
    values = (
        sample.rss_bytes if private is None else private,
        sample.malloc_free_bytes if fresh else None,
        sample.malloc_in_use_bytes if fresh else None,
        sample.python_arena_bytes,
        sample.shmem_bytes,
    )
    row = np.full(len(_COLUMNS), np.nan)
    for i, value in enumerate(values):
        if value is not None:
            row[i] = value / BYTES_PER_MB
    if sample.gpu_bytes is not None:
        row[_ROW["gpu"]] = sample.gpu_bytes / BYTES_PER_MB
    for name, count in (
        ("blocks", sample.python_blocks),
        ("threads", sample.threads),
        ("load", sample.load),
    ):
        if count is not None:
            row[_ROW[name]] = count
    return row
