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


def comes_before(reason: Reason, asked: Reason | None) -> bool:
    """Whether a worker that has asked to be replaced, or not, now asks for `reason`.

    The first one counts. But what is asked for memory may be held back: `memory` for a limit that
    is too low, all of them for too many replacements. That must not hold up the others.
    """
    return asked is None or _rank(reason) > _rank(asked)


def _rank(reason: Reason) -> int:
    if reason is Reason.memory:
        return 0
    return 1 if reason in MEMORY_REASONS else 2
