"""When the own memory of a worker is too much: not for a spike, and not where a trim helps.

Pure. Samples are cheap and can be too high or too low; before anything is decided memory is looked
at exactly, and before a worker is replaced it is asked to give back what it does not need.
"""

from __future__ import annotations

from enum import StrEnum


class MemoryStep(StrEnum):
    """What is to be done now."""

    nothing = "nothing"
    confirm = "confirm"
    """Look exactly, and say it to `confirmed()`."""
    trim = "trim"
    """Collect and trim, look exactly, and say it to `trimmed()`."""
    recycle = "recycle"
    vanished = "vanished"
    """It is all right again: the wish to be replaced is withdrawn."""


class MemoryRule:
    """Of one worker.

    Args:
        max_bytes: what it may have.
        confirm_samples: samples in a row that have to be above.
        hysteresis: the share of `max_bytes` below which it is all right again.
        trim_first: whether collecting and trimming is tried.
    """

    def __init__(
        self, max_bytes: int, *, confirm_samples: int, hysteresis: float, trim_first: bool
    ) -> None:
        self._max_bytes = max_bytes
        self._confirm_samples = confirm_samples
        self._rearm_bytes = hysteresis * max_bytes
        self._trim_first = trim_first
        self._may_trim = trim_first
        self._above = 0
        self._has_asked = False

    def sampled(self, own_bytes: int) -> MemoryStep:
        """A cheap figure, every `sample_interval`."""
        if self._has_asked:
            if own_bytes >= self._rearm_bytes:
                return MemoryStep.nothing
            self._has_asked = False
            return MemoryStep.vanished
        if own_bytes < self._rearm_bytes:
            self._may_trim = self._trim_first
        self._above = self._above + 1 if own_bytes > self._max_bytes else 0
        if self._above < self._confirm_samples:
            return MemoryStep.nothing
        self._above = 0
        return MemoryStep.confirm

    def confirmed(self, own_bytes: int) -> MemoryStep:
        """The exact figure."""
        if own_bytes <= self._max_bytes:
            return MemoryStep.nothing
        return MemoryStep.trim if self._may_trim else self._recycle()

    def trimmed(self, own_bytes: int) -> MemoryStep:
        """The exact figure after collecting and trimming.

        Where that helped too little it is not tried again before memory was all right.
        """
        self._may_trim = self._trim_first and own_bytes < self._rearm_bytes
        return self._recycle() if own_bytes > self._max_bytes else MemoryStep.nothing

    def _recycle(self) -> MemoryStep:
        self._has_asked = True
        return MemoryStep.recycle
