"""What a successor makes of what its predecessor has learnt.

A worker that takes over from a leaking one need not wait for hours to know: it forecasts with the
rate that it has inherited from its first minute on, and looks at its own floor after half an hour.
If that grows at 0.5 to 2 times the inherited rate, in more than a jump or two, the leak is
confirmed; else the inheritance is dropped, and the detector begins from nothing, as it does anyway.
The half hour begins when the start-up of the predecessor would be over. Rates are of one process
each: nothing is ever fitted across a restart.

Recycling does not cure, and the verdict says so, if the same leak is confirmed and the restart gave
back less than half of what the predecessor had grown by: memory of the successor after its start-up
is nearer to where the predecessor ended than to where that one had begun. Then the growth is in the
baseline or in start-up: in shared memory, in a queue or a cache that is loaded again. A leak that
merely goes on after a restart which gave memory back is what recycling is for. Where the
predecessor grew by less than it grows in half an hour, or its baseline is not known, neither is
said.

Pure: no clock, no thread. MB is 2**20 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from memguard_native.memory.floor import (
    BLOCKS,
    MINUTES_PER_HOUR,
    FloorGrowth,
    Refusal,
    Scale,
    judge_floor,
)
from memguard_native.memory.learnt import Learnt
from memguard_native.memory.load_correction import without_load
from memguard_native.memory.minutes import Column, MinuteSeries

_CONFIRM_MINUTES = 30
# Samples that are minutes apart fill the blocks of a longer window only. After two hours the
# detector has seen enough by itself.
_LATEST_MINUTES = 120
# A loose test, because this program is known to leak: of 19 recorded leaks that begin at once 13
# are confirmed (the others begin with a warm-up or leak in rare bursts), and of 60 half hours of
# healthy programs 1 to 7 would be, had their predecessors leaked just as fast as they grow.
_LEAST_RATIO, _MOST_RATIO = 0.5, 2.0
_LEAST_STEPS = 3.0
_LEAST_LAST_QUARTER = 0.2
_LEAST_GIVEN_BACK = 0.5
_BASELINE_MINUTES = 5


class InheritanceState(StrEnum):
    """None: there is no leak to inherit. Inherited: its rate is taken for granted so far.
    Confirmed: this process leaks as its predecessor did. Dropped: it does not."""

    none = "none"
    inherited = "inherited"
    confirmed = "confirmed"
    dropped = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritanceVerdict:
    """What is believed of the leak of the predecessor; rates are None where it is no longer."""

    state: InheritanceState
    rate_mb_per_hour: float | None = None
    """To forecast with: inherited, or measured once it is confirmed."""
    rate_low_mb_per_hour: float | None = None
    """It is hardly lower than this."""
    rate_high_mb_per_hour: float | None = None
    """It is hardly higher than this."""
    cause: str = "unknown"
    """Of the predecessor's leak."""
    growth: FloorGrowth | None = None
    """What was measured to confirm it."""
    window_minutes: int | None = None
    """The time that was looked at to confirm or to drop it."""
    given_back_mb: float | None = None
    """How much less this process began with than its predecessor ended with; None: not known."""
    recycling_cures: bool | None = None
    """False: the leak is in the baseline or in start-up, and recycling does not cure it. None: that
    cannot be told."""
    text: str = ""
    """The same as a sentence; empty for none."""


NOTHING_INHERITED = InheritanceVerdict(state=InheritanceState.none)


class Inheritance:
    """The inheritance of one process. One thread at a time."""

    def __init__(self, learnt: Learnt | None) -> None:
        self.learnt = learnt
        self.verdict = _first_verdict(learnt)

    @property
    def begins_at_minute(self) -> int:
        """The minute from which this process is compared: when its start-up should be over."""
        start_up = None if self.learnt is None else self.learnt.warm_up_minutes
        return round(min(start_up or 0.0, _LATEST_MINUTES - _CONFIRM_MINUTES))

    def observe(self, series: MinuteSeries) -> InheritanceVerdict:
        """Look at the memory of this process, from its first minute on: once a minute."""
        learnt = self.learnt
        if self.verdict.state is not InheritanceState.inherited or learnt is None:
            return self.verdict
        window = series.minute + 1 - self.begins_at_minute
        if window < _CONFIRM_MINUTES:
            return self.verdict
        values = _signal(learnt, series)
        if not _is_known(values[-window:]) and series.minute < _LATEST_MINUTES:
            return self.verdict
        rate = learnt.rate_mb_per_hour or 0.0
        growth = judge_floor(values[-window:], _scale(window), rate)
        if isinstance(growth, Refusal) or growth.rate_mb_per_hour > _MOST_RATIO * rate:
            self.verdict = _dropped(learnt, window)
        else:
            self.verdict = _confirmed(learnt, growth, window, _baseline(series, window))
        return self.verdict


def _first_verdict(learnt: Learnt | None) -> InheritanceVerdict:
    if learnt is None or learnt.state != "alert" or not learnt.rate_mb_per_hour:
        return NOTHING_INHERITED
    rate = learnt.rate_mb_per_hour
    return InheritanceVerdict(
        state=InheritanceState.inherited,
        rate_mb_per_hour=rate,
        rate_low_mb_per_hour=_LEAST_RATIO * rate,
        rate_high_mb_per_hour=_MOST_RATIO * rate,
        cause=learnt.cause,
        text=f"the process before this one leaked {rate:.3g} MB/h ({learnt.cause})",
    )


def _signal(learnt: Learnt, series: MinuteSeries) -> Column:
    """What the predecessor leaked by; private memory alone shows fragmentation."""
    values = series.column("private" if learnt.cause == "fragmentation" else "live")
    load = series.column("load")
    if np.isnan(load[-1]):
        return values
    return without_load(values, load, learnt.mb_per_load or 0.0)


def _is_known(values: Column) -> bool:
    """Whether no gap is as long as a block."""
    known = np.flatnonzero(~np.isnan(values))
    edges = np.concatenate(([-1], known, [len(values)]))
    return bool(np.diff(edges).max() - 1 < len(values) // BLOCKS)


def _scale(window: int) -> Scale:
    return Scale(
        window_minutes=window,
        least_rate=_LEAST_RATIO,
        scatter=math.inf,
        bend=math.inf,
        least_steps=_LEAST_STEPS,
        least_last_quarter=_LEAST_LAST_QUARTER,
        least_halves=-math.inf,
        new_high=0.0,
    )


def _baseline(series: MinuteSeries, window: int) -> float:
    # At least a block: each has a sample, while the first minutes may have none.
    minutes = max(_BASELINE_MINUTES, window // BLOCKS)
    return float(np.nanmin(series.column("private")[-window:][:minutes]))


def _confirmed(
    learnt: Learnt, growth: FloorGrowth, window: int, baseline_mb: float
) -> InheritanceVerdict:
    given_back, cures, cure_text = _judge_recycling(learnt, baseline_mb)
    return InheritanceVerdict(
        state=InheritanceState.confirmed,
        rate_mb_per_hour=growth.rate_mb_per_hour,
        rate_low_mb_per_hour=growth.rate_low_mb_per_hour,
        rate_high_mb_per_hour=growth.rate_high_mb_per_hour,
        cause=learnt.cause,
        growth=growth,
        window_minutes=window,
        given_back_mb=given_back,
        recycling_cures=cures,
        text=f"leaks as the process before it: {growth.rate_mb_per_hour:.3g} MB/h in "
        f"{window} minutes, {learnt.rate_mb_per_hour:.3g} MB/h before{cure_text}",
    )


def _dropped(learnt: Learnt, window: int) -> InheritanceVerdict:
    return InheritanceVerdict(
        state=InheritanceState.dropped,
        window_minutes=window,
        text=f"does not leak in {window} minutes as the process before it, "
        f"{learnt.rate_mb_per_hour:.3g} MB/h",
    )


def _judge_recycling(learnt: Learnt, baseline_mb: float) -> tuple[float | None, bool | None, str]:
    """What the restart gave back, whether that cures, and the words for it."""
    if learnt.retained_mb is None:
        return None, None, ""
    given_back = learnt.retained_mb - baseline_mb
    grown = 0.0 if learnt.baseline_mb is None else learnt.retained_mb - learnt.baseline_mb
    least = (learnt.rate_mb_per_hour or 0.0) * _CONFIRM_MINUTES / MINUTES_PER_HOUR
    if learnt.baseline_mb is None or grown < least:
        return given_back, None, ""
    told = f"{max(0.0, given_back):.0f} of the {grown:.0f} MB that it had grown by"
    if given_back >= _LEAST_GIVEN_BACK * grown:
        return given_back, True, f"; the restart gave back {told}"
    return (
        given_back,
        False,
        f"; recycling does not cure it: the restart gave back {told}, so the leak is in the "
        "baseline or in start-up",
    )
