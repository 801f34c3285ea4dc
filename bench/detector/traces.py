"""The recorded traces and what is known of them: `tests/traces/labels.csv`.

A row of a trace is a minute. Two traces of one program would tell twice the same, so what is left
out in a cross-validation are programs: traces whose names begin alike, such as both `leak_dict_`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memguard_native.memory.sample import BYTES_PER_MB, MemorySample
from memguard_native.memory.trace_file import read_trace

DEVELOPMENT = Path(__file__).resolve().parents[2] / "tests" / "traces"
# Programs that no constant was chosen on.
UNSEEN = DEVELOPMENT / "unseen"
# Programs that nobody who made a rule had looked at.
BLIND = DEVELOPMENT / "blind"

# They were recorded in time lapse: so many seconds stand for a minute.
_MINUTE_S = 0.25

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """One program's memory, minute by minute, and the truth about it."""

    name: str
    leaks: bool
    causes: tuple[str, ...] = ()
    """What the cause may be called."""
    mb_per_hour: float = 0.0
    """The rate of the leak from its onset on, the mean where it varies."""
    onset: int = 0
    """The sample at which the leak begins."""
    is_steady: bool = False
    """Whether an estimate can be compared with the rate."""
    samples: Sequence[MemorySample] = field(repr=False)

    @property
    def program(self) -> str:
        return self.name.split("_")[1]

    @property
    def hours(self) -> float:
        return len(self.samples) / 60.0

    @property
    def reports_load(self) -> bool:
        return any(sample.load for sample in self.samples)

    @cached_property
    def rss_mb(self) -> Column:
        return _in_mb([sample.rss_bytes for sample in self.samples])

    @cached_property
    def private_mb(self) -> Column:
        return _in_mb([sample.private_bytes for sample in self.samples])

    @cached_property
    def in_use_mb(self) -> Column:
        """What malloc has given out."""
        return _in_mb([sample.malloc_in_use_bytes for sample in self.samples])

    def without_load(self) -> Trace:
        """The same as a program that does not report its load; itself, if it does not."""
        if not self.reports_load:
            return self
        return replace(self, samples=tuple(one._replace(load=None) for one in self.samples))


@cache
def load(folder: Path) -> tuple[Trace, ...]:
    """All that `labels.csv` of this folder names, in its order."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(_trace(folder, row) for row in csv.DictReader(lines))


@cache
def load_without_load(folder: Path) -> tuple[Trace, ...]:
    """The same as of programs that do not report theirs."""
    return tuple(trace.without_load() for trace in load(folder))


def _trace(folder: Path, row: dict[str, str]) -> Trace:
    return Trace(
        name=row["name"],
        leaks=row["leak"] == "yes",
        causes=tuple(filter(None, (row["cause"], row["also"]))),
        mb_per_hour=float(row["mb_per_hour"] or 0.0),
        onset=int(row["onset"] or 0),
        is_steady=row["steady"] == "yes",
        samples=tuple(read_trace(folder / f"{row['name']}.csv", minute_s=_MINUTE_S)),
    )


def _in_mb(amounts: Sequence[int | None]) -> Column:
    return np.array([np.nan if one is None else one / BYTES_PER_MB for one in amounts])
