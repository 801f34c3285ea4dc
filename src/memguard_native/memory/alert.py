"""`Alert`: what a monitor tells when memory grows too fast. Immutable, picklable."""

from __future__ import annotations

from dataclasses import asdict, dataclass

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Memory of this process grew faster than the limit."""

    rule: str
    """Which rule raised it: "window"."""
    severity: str
    """"notice": the window rule cannot tell a leak from warm-up."""
    sample: int
    """The number of the sample that raised it, from 0 at the monitor's start."""
    at: float
    """When that sample was taken: seconds since 1970-01-01 UTC."""
    signal: str
    """What grew: "private" or "rss"."""
    window_minutes: float
    """The time between the oldest and the newest sample that were compared."""
    rate_mb_per_hour: float
    """The growth between them. 1 MB = 2**20 bytes."""
    threshold_mb_per_hour: float
    """The limit that it exceeds."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names, and "schema": 1. Ready for JSON."""
        return {"schema": _SCHEMA, **asdict(self)}
