"""Why a worker is replaced."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word each, the same in logs, metrics and on the command line."""

    requests = "requests"
    inputs = "inputs"
    tokens = "tokens"
    lifetime = "lifetime"
    memory = "memory"
    """Its own memory is above the limit of a worker."""
    group = "group"
    """All together are above theirs, and it has grown most."""
    ceiling = "ceiling"
    """It is above what no worker may have: it is given two seconds."""
    leak = "leak"
    forecast = "forecast"
    """The limit may be reached soon."""
    manual = "manual"
    backend = "backend"
    """It says itself that it is sick."""
    hang = "hang"
    crash = "crash"


MEMORY_REASONS = frozenset(
    {Reason.memory, Reason.group, Reason.ceiling, Reason.leak, Reason.forecast}
)
