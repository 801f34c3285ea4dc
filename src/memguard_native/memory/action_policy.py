"""Which actions against growing memory may be taken, and when. Pure; validated at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from memguard_native.errors import ConfigError, is_finite_number

_DAY = 24 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionPolicy:
    """What may be done when an alert is raised, a step after the other.

    `ActionPolicy.named()` gives the usual ones: "log" tells people and changes nothing, "auto"
    does everything, "dry-run" says what "auto" would do.

    Raises ConfigError: a value of the wrong type or out of its range.
    """

    log: bool = True
    """Log the alert."""
    callback: bool = True
    """Call `on_alert`."""
    collect: bool = False
    """Call `gc.collect()`: once an alert, for the causes python-objects and unknown."""
    trim: bool = False
    """Have malloc give free memory back: for the cause fragmentation."""
    empty_gpu_cache: bool = False
    """Call `torch.cuda.empty_cache()`: once an alert, where memory of a GPU grows."""
    advise: bool = True
    """Log what is known to help."""
    recycle: bool = False
    """Ask for this process to be replaced, if nothing else helped or time is running out."""
    dry_run: bool = False
    """Only record what would be done. Logging, calling back and advice happen all the same."""

    trim_interval: float = 900.0
    """Seconds between two trims, from 60 to a day. One takes milliseconds under malloc's locks, and
    what it gave back is faulted in again; so not every minute."""
    trim_worth: float = 0.05
    """The share of private memory that a trim has to give back to be tried again, from 0 to 1. What
    gave back less is not fragmentation that a trim can cure."""
    idle_gap: float = 0.2
    """Seconds without a request in flight before `collect` and `trim`, from 0 to 60, where the load
    is known: nobody is to wait for them."""
    idle_patience: float = 300.0
    """Seconds of an alert after which they are taken without such a gap, from 0 to a day: a server
    that is never idle would be replaced instead, which costs more."""
    recycle_after: float = 600.0
    """Seconds that an alert lasts before replacement is asked for, and between two times that it
    is, from 0 to a day."""
    recycle_horizon: float = 1800.0
    """Replacement is asked for at once if the limit may be reached within so many seconds, from 0
    to a day."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "bool":
                _check_bool(field.name, getattr(self, field.name))
        _check_number("trim_interval", self.trim_interval, 60.0, _DAY)
        _check_number("trim_worth", self.trim_worth, 0.0, 1.0)
        _check_number("idle_gap", self.idle_gap, 0.0, 60.0)
        _check_number("idle_patience", self.idle_patience, 0.0, _DAY)
        _check_number("recycle_after", self.recycle_after, 0.0, _DAY)
        _check_number("recycle_horizon", self.recycle_horizon, 0.0, _DAY)

    @classmethod
    def named(cls, policy: str | ActionPolicy) -> ActionPolicy:
        """The policy of that name, "log", "auto" or "dry-run"; a policy is given back as it is.

        Raises ConfigError: no such name.
        """
        if isinstance(policy, ActionPolicy):
            return policy
        if policy == "log":
            return cls()
        if policy in ("auto", "dry-run"):
            return cls(
                collect=True,
                trim=True,
                empty_gpu_cache=True,
                recycle=True,
                dry_run=policy == "dry-run",
            )
        allowed = "must be one of 'log', 'auto', 'dry-run', or an ActionPolicy"
        raise ConfigError("actions", policy, allowed)


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be True or False")


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if not is_finite_number(value) or not least <= value <= most:
        raise ConfigError(name, value, f"must be a number from {least:g} to {most:g}")


SILENT = ActionPolicy(log=False, callback=False, advise=False)
"""Nothing is done or told: for memory that is not of this process."""
