"""`MonitorSnapshot`: what a monitor knows at one instant. Immutable; needs no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memguard_native.memory.alert import Alert, Forecast, MemoryState, Suspect
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.window import Growth

if TYPE_CHECKING:
    from memguard_native.memory.inheritance import InheritanceVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSnapshot:
    """What a monitor knows at one instant."""

    state: MemoryState = MemoryState.learning
    samples: tuple[MemorySample, ...] = ()
    """The newest `window` samples that say something, oldest first."""
    sample_count: int = 0
    """Samples since the start."""
    growth: Growth | None = None
    """The growth over the window; None while the window says too little for a verdict."""
    alert: Alert | None = None
    """The alert that is raised and not cleared yet; if two rules have one, that of the floor."""
    suspect: Suspect | None = None
    """The suspicion that is raised and not cleared yet."""
    forecast: Forecast | None = None
    """When memory reaches its limit; None without a suspicion, an alert or a limit."""
    limit: MemoryLimit | None = None
    """What memory will run into."""
    inherited: InheritanceVerdict | None = None
    """What is believed of the leak of the process before this one; None before the first sample."""
    callback_errors: int = 0
    """How many times a callback raised."""
    probe_failures: int = 0
    """How many times a sample, or a part of it, could not be read."""
    judging_failures: int = 0
    """How many samples could not be judged, by an error of ours; the first is in the log."""

    @property
    def rate_mb_per_hour(self) -> float | None:
        """How fast memory grows: the rate of the alert or of the suspicion, else of `growth`."""
        raised = self.alert or self.suspect or self.growth
        return None if raised is None else raised.rate_mb_per_hour
