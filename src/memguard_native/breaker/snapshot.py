"""`BreakerSnapshot`: everything that is known of a breaker at one instant. Immutable, picklable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSnapshot:
    """What `CircuitBreaker.snapshot()` found. Counters only grow; a healthy success is not counted.

    Its parts are read one after the other: under load they may be apart by the calls in flight.
    """

    name: str
    state: str
    generation: int
    """Transitions, and replaced probes, since construction."""
    failure_count: int
    """Failures in a row; goes on counting through failed probes and is 0 after closing."""
    retry_after: float
    """Seconds until a call may be admitted; 0.0 if one may now."""
    opened_at: float | None
    """When it opened last: seconds since 1970-01-01 UTC."""
    last_error: tuple[str, str] | None
    """Type and text of the exception that opened it last; None if no exception did."""
    cause: str | None
    """Which rule opened it last, as the reason of the event says."""
    probes_in_flight: int

    probe_successes: int
    """While half-open: probes that run, and probes that succeeded so far."""
    window_calls: int
    window_failures: int
    window_slow: int
    """Of the newest `count_window` calls since the last closing; 0 where no rule needs them."""
    failures: int
    neutrals: int
    rejections: int
    stale: int
    transitions: int

    def to_dict(self) -> dict[str, object]:
        """All fields under their names, and "schema": 1. Ready for JSON."""
        return {"schema": _SCHEMA, **asdict(self)}


def snapshot_of(name: str, found: dict[str, Any]) -> BreakerSnapshot:
    """The snapshot of what the core tells."""
    details = found.pop("details")
    _, opened_at, last_error, cause = details if details is not None else (0, None, None, None)
    return BreakerSnapshot(
        name=name, opened_at=opened_at, last_error=last_error, cause=cause, **found
    )
