"""`BreakerSnapshot`: everything that is known of a breaker at one instant. Immutable, picklable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSnapshot:
    """What `CircuitBreaker.snapshot()` found. Counters only grow.

    Its parts are read one after the other: under load they may be apart by the calls in flight.
    """

    name: str
    scope: str
    """"local" or "host": whose calls these are."""
    state: str
    would_be: str
    """The state by the rules: another than `state` in shadow alone."""
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
    detail: str | None
    """What a rule of the user's said then, or the reason given by hand."""
    step: int
    """Reopenings since the last closing: by how many steps the open period has grown."""
    probes_in_flight: int
    probe_successes: int
    """While half-open: probes that run, and probes that succeeded so far."""
    in_flight: int
    """Calls that run now; 0 where no `pile_up` rule needs it."""
    window_calls: int
    window_failures: int
    window_slow: int
    """Of the newest `count_window` calls since the last closing; 0 where calls are not counted."""
    successes: int | None
    """None where calls are not counted: a healthy success leaves no trace."""
    failures: int
    slow: int
    """Calls that took `slow_call_duration` or longer, whatever became of them."""
    neutrals: int
    cancelled: int
    """Those of the neutral ones that a cancellation ended."""
    rejections: int
    unenforced: int
    """Calls that ran because the rules, which would have rejected them, are not enforced."""
    stale: int
    transitions: int
    transitions_by_kind: dict[str, int]
    """How often it went from one state to another: {"closed->open": 2}."""
    open_seconds: float
    """For how long it was open or forced open, in sum."""

    @classmethod
    def of(cls, name: str, found: dict[str, Any]) -> BreakerSnapshot:
        """The snapshot of what the core tells."""
        details = found.pop("details") or (0, None, None, None, None)
        _, opened_at, last_error, cause, detail = details
        return cls(
            name=name,
            opened_at=opened_at,
            last_error=last_error,
            cause=cause,
            detail=detail,
            **found,
        )

    def to_dict(self) -> dict[str, object]:
        """All fields under their names, and "schema": 1. Ready for JSON."""
        return {"schema": _SCHEMA, **asdict(self)}
