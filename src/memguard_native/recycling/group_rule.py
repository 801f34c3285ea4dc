"""When all workers together have too much memory, and which of them is to be replaced for that.

Pure: time and figures are given in. One figure never decides, and who was chosen stays chosen until
it is gone or memory is all right again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping


class GroupRule:
    """Of one service.

    Args:
        max_bytes: what all together may have; None: no limit.
        confirm_samples: figures in a row that have to be above.
        hysteresis: the share of `max_bytes` below which it is all right again.
        sample_interval: seconds between two figures that count.
    """

    def __init__(
        self,
        max_bytes: int | None,
        *,
        confirm_samples: int,
        hysteresis: float,
        sample_interval: float,
    ) -> None:
        self._max_bytes = max_bytes
        self._confirm_samples = confirm_samples
        self._hysteresis = hysteresis
        self._sample_interval = sample_interval
        self._above = 0
        self._next_look_at = -float("inf")
        self.chosen: int | None = None
        """The generation of the worker that is to be replaced."""
        self.chosen_at = 0.0

    def look(
        self,
        now: float,
        taken_bytes: int | None,
        growth: Mapping[int, int],
        present: Container[int],
    ) -> None:
        """Called as often as one likes.

        Args:
            now: seconds.
            taken_bytes: memory of all together; None: not known.
            growth: bytes by generation that each ready worker has grown by since it was ready.
            present: the generations of all workers, draining ones too.
        """
        if self._max_bytes is None or taken_bytes is None:
            return
        if self.chosen is not None and (
            self.chosen not in present or taken_bytes < self._max_bytes * self._hysteresis
        ):
            self.chosen = None
        if now < self._next_look_at:
            return
        self._next_look_at = now + self._sample_interval
        if self.chosen is not None:
            return  # what it has yet says nothing about the others: they begin at none
        self._above = self._above + 1 if taken_bytes > self._max_bytes else 0
        if self._above < self._confirm_samples:
            return
        self._above = 0
        if growth:
            self.chosen = max(growth, key=lambda generation: growth[generation])
            self.chosen_at = now
