"""What a monitor tells: an `Alert`, a `Suspect`, a `Forecast`. Immutable, ready for JSON.

MB is 2**20 bytes. The number of a sample counts from 0, where the monitor or the trace begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

_SCHEMA = 1


class MemoryState(StrEnum):
    """Learning: too early to tell. Steady: no reason to worry. Suspect: memory has a trend, which a
    warm-up has too. Alert: memory grows as a leak does, or above the limit of the window rule."""

    learning = "learning"
    steady = "steady"
    suspect = "suspect"
    alert = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When memory will reach its limit, if it goes on like this. Infinite: never."""

    seconds: float
    """The estimate."""
    earliest_seconds: float
    """The earliest time that the growth of the window makes likely."""
    latest_seconds: float
    """The latest."""
    limit_bytes: int
    """What it will reach."""
    limit_source: str
    """Whose limit that is: "cgroup", "rlimit", "config" or "host"."""
    inherited: bool = False
    """Whether the rate is that of the process before this one, and not yet measured here."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names; None for what is infinite, which JSON does not know."""
        return {
            name: None if value == float("inf") else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Memory has a trend. Not yet a leak: warm-up, a ramp of load and a daily wave have one too."""

    sample: int
    """The number of the sample at which it began."""
    at: float
    """When that sample was taken: seconds since 1970-01-01 UTC."""
    rate_mb_per_hour: float
    """The trend at that moment."""
    cleared_sample: int | None = None
    """The number of the sample at which it ended; None while it lasts."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Memory of this process grows faster than the limit."""

    rule: str
    """Which rule raised it: "window" (the growth over the newest samples) or "floor" (memory that
    is never given back)."""
    severity: str
    """"notice": the window rule cannot tell a leak from warm-up. "warning": a leak. "critical": a
    leak that reaches its limit soon."""
    sample: int
    """The number of the sample that raised it."""
    at: float
    """When that sample was taken: seconds since 1970-01-01 UTC."""
    signal: str
    """What grew: "live", "private", "heap", "rss" or "gpu"."""
    window_minutes: float
    """The time that the growth was measured over."""
    rate_mb_per_hour: float
    """The growth in that time."""
    rate_low_mb_per_hour: float | None = None
    """The rate is hardly lower than this."""
    rate_high_mb_per_hour: float | None = None
    """The rate is hardly higher than this."""
    threshold_mb_per_hour: float
    """The limit that it exceeds."""
    cause: str = "unknown"
    """"python-objects", "native-heap", "fragmentation", "mmap", "shared-memory" or "unknown"."""
    cause_text: str = ""
    """The same in words, with what is known of it."""
    parts_mb_per_hour: Mapping[str, float] = field(default_factory=dict)
    """How fast each part grew: "python_arenas", "malloc_in_use", "malloc_free", "shared", "other";
    what is not known is left out."""
    forecast: Forecast | None = None
    """When the limit is reached; None where no limit is known."""
    evidence: Mapping[str, object] | None = None
    """What was collected while the process was under suspicion; None if nothing was."""
    cleared_sample: int | None = None
    """The number of the sample at which it ended; None while it lasts."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names, and "schema": 1. Ready for JSON."""
        found = asdict(self)
        found["forecast"] = None if self.forecast is None else self.forecast.to_dict()
        return {"schema": _SCHEMA, **found}
