"""How long to wait before a worker is started again that has ended too early, and when to give up.

Pure: times are given in.
"""

from __future__ import annotations

from collections import deque

_EARLY = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
# With waits of up to a minute, a single worker ends about fifteen times in the period.
_MOST_ENDS = 10
_PERIOD = 600.0


class CrashBudget:
    """Of all workers of a service, by their numbers."""

    def __init__(self) -> None:
        self._waits: dict[int, float] = {}  # of a number that goes on failing
        self._retry_at: dict[int, float] = {}
        self._ends: deque[float] = deque()

    def crashed(self, number: int, now: float, *, was_ready: bool, age: float) -> None:
        """A worker has ended that should not have, `age` seconds after it was ready or started."""
        is_early = not was_ready or age < _EARLY
        last = self._waits.get(number) if is_early else None
        if last is not None:
            wait = min(_LONGEST_WAIT, max(_FIRST_WAIT, 2.0 * last))
        else:
            # The first crash of one that served may be chance. One that never became ready will
            # not become so at once.
            wait = 0.0 if was_ready else _FIRST_WAIT
        self._waits[number] = wait
        self._retry_at[number] = now + wait
        self._ends.append(now)

    def forget(self, number: int) -> None:
        """A worker has ended as it was told to: what was before it is over."""
        self._waits.pop(number, None)
        self._retry_at.pop(number, None)

    def may_start(self, number: int, now: float) -> bool:
        """Whether a worker of this number may be started now."""
        return now >= self._retry_at.get(number, now)

    def is_spent(self, now: float, *, is_any_ready: bool) -> bool:
        """Whether workers end again and again and none is ever ready."""
        if is_any_ready:
            self._ends.clear()
        while self._ends and now - self._ends[0] > _PERIOD:
            self._ends.popleft()
        return len(self._ends) > _MOST_ENDS
