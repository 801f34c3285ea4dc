"""`Explanation`: all that a monitor knows about the memory of its process, for people and as JSON.

Made on demand, from what the monitor's thread has concluded so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from memguard_native.memory.actions import TELLING, ActionRecord
from memguard_native.memory.advice import Advice
from memguard_native.memory.alert import Alert, Forecast, MemoryState, Suspect
from memguard_native.memory.evidence_text import report_text
from memguard_native.memory.floor import FloorGrowth, Refusal, Scale
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.wording import change, forecast_text, rate, size, verdict

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleVerdict:
    """What one window says of one signal: "leak", or the first rule that it does not keep."""

    window_minutes: int
    least_rate_mb_per_hour: float
    """What it looks for grows at least as fast."""
    signal: str
    rule: str
    """The rule that was not kept; "leak" if all were."""
    found: float
    """What the rule looked at; the rate of a leak in MB/hour."""
    limit: float
    """What it allows; for a leak the least likely rate."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names; None for what is not known, as JSON has no NaN."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def verdict_of(
    scale: Scale, signal: str, said: FloorGrowth | Refusal, threshold_mb_per_hour: float
) -> ScaleVerdict:
    """What a scale said, by name."""
    if isinstance(said, FloorGrowth):
        said = Refusal("leak", said.rate_mb_per_hour, said.rate_low_mb_per_hour)
    return ScaleVerdict(
        window_minutes=scale.window_minutes,
        least_rate_mb_per_hour=scale.least_rate * threshold_mb_per_hour,
        signal=signal,
        rule=said.rule,
        found=said.found,
        limit=said.limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is known of the memory of a process. `str()` is a page for people."""

    state: MemoryState
    alert: Alert | None
    suspect: Suspect | None
    forecast: Forecast | None
    limit: MemoryLimit | None
    parts_mb_per_hour: Mapping[str, float]
    """How fast each part of memory grew in the last hour."""
    per_load_mb: float
    """MB that a unit of load takes; 0 where that is not clear."""
    scales: Sequence[ScaleVerdict]
    evidence: Mapping[str, object] | None
    actions: Sequence[ActionRecord]
    advice: Sequence[Advice]

    def to_dict(self) -> dict[str, object]:
        """All of it under its names, and "schema": 1. Ready for JSON."""
        return {
            "schema": _SCHEMA,
            "state": str(self.state),
            "alert": None if self.alert is None else self.alert.to_dict(),
            "suspect": None if self.suspect is None else self.suspect.to_dict(),
            "forecast": None if self.forecast is None else self.forecast.to_dict(),
            "limit": None if self.limit is None else self.limit._asdict(),
            "parts_mb_per_hour": dict(self.parts_mb_per_hour),
            "per_load_mb": self.per_load_mb,
            "scales": [one.to_dict() for one in self.scales],
            "evidence": self.evidence,
            "actions": [record.to_dict() for record in self.actions],
            "advice": [asdict(one) for one in self.advice],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        alerts = () if self.alert is None else (self.alert,)
        suspects = () if self.suspect is None else (self.suspect,)
        yield verdict(alerts, suspects, is_known=self.state is not MemoryState.learning)
        if self.alert is not None and self.alert.cause_text:
            yield f"Cause: {self.alert.cause_text}"
        if self.forecast is not None:
            yield f"If it goes on like this, {forecast_text(self.forecast)}."
        elif self.limit is not None:
            yield f"The limit is {size(self.limit.bytes)} ({self.limit.source})."
        if self.parts_mb_per_hour:
            yield "Growth by part in the last hour:"
            for part, grown in self.parts_mb_per_hour.items():
                yield f"  {part:<15}{change(grown):>9} MB/h"
        if self.per_load_mb:
            yield f"A unit of load takes {self.per_load_mb:.3g} MB."
        if self.scales:
            yield "What each window says:"
        for one in self.scales:
            window = f"{one.window_minutes} min, from {one.least_rate_mb_per_hour:g} MB/h"
            yield f"  {window:<24}{one.signal:<8}{_said(one)}"
        if self.evidence is not None:
            yield report_text(self.evidence)
        for record in self.actions:
            if record.step in TELLING:
                continue
            yield f"Action: {record.step}: {record.why}"
        for advice in self.advice:
            yield f"Advice: {advice.title}. {advice.text} Try: {advice.setting}"


def _said(one: ScaleVerdict) -> str:
    if one.rule == "leak":
        return f"a leak of {rate(one.found)}"
    return f"no leak: {one.rule} {one.found:.3g}, limit {one.limit:.3g}"
