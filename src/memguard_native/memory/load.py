"""`Load`: how much a process has to do, told by the program, so that a busy hour is not a leak.

Two figures: the load, which is in flight at this instant, in whatever unit explains the memory best
(requests, bytes, tokens), and the requests that were served so far. Nothing told is not known, and
changes nothing. Any thread may call anything, also a signal handler; no lock.

The child of a fork begins anew: what its parent has in flight is not its own.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from memguard_native import _core
from memguard_native.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

_ALLOWED = "must be a finite number"
# Sums of fractions seldom come back to 0 exactly.
_NOTHING = 1e-6
# As far back as the detector looks, and the minute before.
_KEPT_MINUTES = 361


class Load:
    """The load of this process; a `MemoryMonitor` has one, `monitor.load`."""

    def __init__(self) -> None:
        self.gauge = _core.LoadGauge()
        """What the sampler reads, without the GIL."""
        self.requests = Requests(self.gauge)
        """The requests that were served so far."""
        self._changed_at = time.monotonic()
        self._forks = 0
        _loads.add(self)

    @property
    def value(self) -> float | None:
        """What is in flight; None until something was told."""
        return self.gauge.value

    def set(self, amount: float) -> None:
        """So much is in flight. Raises ConfigError: not a finite number."""
        try:
            self.gauge.set(amount)
        except (TypeError, ValueError):
            raise ConfigError("amount", amount, _ALLOWED) from None
        self._changed_at = time.monotonic()

    def add(self, amount: float) -> None:
        """So much more is in flight, or less; from 0 if nothing was told.

        Raises ConfigError: not a finite number.
        """
        try:
            self.gauge.add(amount)
        except (TypeError, ValueError):
            raise ConfigError("amount", amount, _ALLOWED) from None
        self._changed_at = time.monotonic()

    def track(self, amount: float = 1.0) -> Tracked:
        """`with load.track(amount):` so much is in flight within the block, however it ends.

        Raises ConfigError, at the beginning of the block: not a finite number.
        """
        return Tracked(self, amount)

    def idle_seconds(self) -> float | None:
        """For how long nothing has been in flight; 0 while something is; None if not known."""
        value = self.gauge.value
        if value is None:
            return None
        if value >= _NOTHING:
            return 0.0
        return max(0.0, time.monotonic() - max(self._changed_at, self.requests.ended_at))

    def _restart_in_child(self) -> None:
        self._forks += 1
        if self.gauge.value is not None:
            self.gauge.set(0.0)
        self.requests._restart_in_child()
        self._changed_at = time.monotonic()


class Tracked:
    """What a block has in flight: `add()` makes it more, the end of the block ends all of it."""

    __slots__ = ("_amount", "_forks", "_load")

    def __init__(self, load: Load, amount: float) -> None:
        self._load = load
        self._amount = amount
        self._forks = load._forks

    def __enter__(self) -> Tracked:
        self._forks = self._load._forks
        self._load.add(self._amount)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Nothing of it is in flight any more: what the end of the block does. Idempotent."""
        # In a child that was forked within the block nothing of it is in flight.
        if self._amount and self._forks == self._load._forks:
            self._load.add(-self._amount)
        self._amount = 0.0

    def add(self, amount: float) -> None:
        """So much more is in flight until the end of the block. One thread at a time.

        Raises ConfigError: not a finite number.
        """
        if self._forks == self._load._forks:
            self._load.add(amount)
            self._amount += amount


class Requests:
    """Counts requests, from any thread."""

    def __init__(self, gauge: _core.LoadGauge) -> None:
        self._counter = _core.RequestCounter(gauge)
        self.begin: Callable[[], int] = self._counter.begin
        """A request begins: one more is served and, as a load of 1, in flight. For its `end`."""
        self.end: Callable[[int], None] = self._counter.end
        """The request ends that `begin` gave this number. The two take some 30 ns."""

    def add(self, count: int = 1) -> None:
        """So many more were served, which are not in flight here.

        Raises ConfigError: not an int >= 0.
        """
        try:
            self._counter.add(count)
        except (TypeError, OverflowError):
            raise ConfigError("count", count, "must be an int >= 0") from None

    @property
    def value(self) -> int | None:
        """How many were served; None until something was told."""
        return self._counter.value

    @property
    def ended_at(self) -> float:
        """When the newest one ended, on the monotonic clock; 0 if none did."""
        return self._counter.ended_ns / 1e9

    def _restart_in_child(self) -> None:
        self._counter.reset()


class RequestsByMinute:
    """What the counter read minute by minute: how many requests a window of time had. Pure."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque(maxlen=_KEPT_MINUTES)

    def add(self, minute: int, count: int | None) -> None:
        """The counter read `count` in this minute; minutes only grow, the first of one counts."""
        if count is not None and (not self._counts or minute > self._counts[-1][0]):
            self._counts.append((minute, count))

    def within(self, minutes: int) -> int | None:
        """The requests of the last `minutes`; None if they were not counted for so long."""
        if not self._counts:
            return None
        newest, count = self._counts[-1]
        for minute, before in reversed(self._counts):
            if minute <= newest - minutes:
                return count - before
        return None


def mb_per_1000_requests(
    rate_mb_per_hour: float, minutes: int, requests: int | None
) -> float | None:
    """What a thousand requests leave behind, if memory grew so fast while they were served in so
    many minutes; None without requests.
    """
    if not requests:
        return None
    return rate_mb_per_hour * minutes / 60.0 / requests * 1000.0


_loads: weakref.WeakSet[Load] = weakref.WeakSet()


def _restart_all_in_child() -> None:
    for load in tuple(_loads):
        load._restart_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all_in_child)
