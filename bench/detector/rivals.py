"""The rivals over a trace: what each warns of, as verdicts like ours.

A rival tells in which minutes it warns. An alert is raised where it begins to, as with ours; none
of them names a cause. Those that need a library which is not installed are left out by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.detector.scoring import Alarm, Verdict
from bench.detector.traces import Trace
from bench.detector.verdicts import THRESHOLD_MB_PER_HOUR
from memguard_native.memory.alert import MemoryState
from memguard_native.memory.window import WindowRule

Judge = Callable[[Trace], Verdict]

_INTERVAL = 60.0


@dataclass(frozen=True)
class Rival:
    """A detector of somebody else's: its adapter in `bench.rivals`, and what it looks at."""

    name: str
    module: str
    signal: str
    samples: int | None = None

    def load(self) -> Judge | None:
        """None: a library that it needs is not installed."""
        try:
            warned = importlib.import_module(f"bench.rivals.{self.module}").warned
        except ImportError:
            return None
        arguments = () if self.samples is None else (self.samples,)
        return lambda trace: at_rising_edges(warned(getattr(trace, self.signal), *arguments))


RIVALS: Sequence[Rival] = (
    Rival("original's formula, rss", "original_window", "rss_mb"),
    Rival("original's formula, malloc in use", "original_window", "in_use_mb"),
    *(
        Rival(f"least squares, {samples} samples", "least_squares", "private_mb", samples)
        for samples in (12, 60, 120)
    ),
    *(
        Rival(f"Theil-Sen + Mann-Kendall, {samples}", "mann_kendall", "private_mb", samples)
        for samples in (60, 120)
    ),
    Rival("hourly regression, two hours", "hourly_regression", "private_mb"),
)


def each() -> Iterator[tuple[Rival, Judge | None]]:
    for rival in RIVALS:
        yield rival, rival.load()


def by_window_rule(trace: Trace) -> Verdict:
    """Our own mode that stands in for the original, `rule="window"`."""
    rule = WindowRule(interval=_INTERVAL, window=12, threshold_mb_per_hour=THRESHOLD_MB_PER_HOUR)
    raised = []
    for sample in trace.samples:
        rule.add(sample)
        raised.append(rule.state is MemoryState.alert)
    return at_rising_edges(np.array(raised, dtype=bool))


def at_rising_edges(warned: NDArray[np.bool_]) -> Verdict:
    """An alarm where the warning begins."""
    begins = warned & ~np.concatenate([[False], warned[:-1]])
    return Verdict(tuple(Alarm(int(sample)) for sample in np.flatnonzero(begins)))
