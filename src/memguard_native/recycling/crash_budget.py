"""How long to wait before a worker is started again that has ended too early, and when to give up.

Pure: times are given in.
"""

from __future__ import annotations

from collections import deque

_EARLY = 60.0
_LONGEST_WAIT = 60.0
_MOST_ENDS = 20
_PERIOD = 600.0


class CrashBudget:
    """Of all workers of a service, by their numbers."""

    def __init__(self) -> None:
        self._streaks: dict[int, int] = {}
        self._retry_at: dict[int, float] = {}
        self._ends: deque[float] = deque()

    def crashed(self, number: int, now: float, *, was_ready: bool, age: float) -> None:
        """A worker has ended that should not have, `age` seconds after it was ready or started."""
        is_early = not was_ready or age < _EARLY
        streak = self._streaks.get(number, 0) + 1 if is_early else 1
        self._streaks[number] = streak
        # The first crash of one that served may be chance. One that never became ready will not
        # become so at once.
        doublings = streak - 2 if was_ready else streak - 1
        wait = 0.0 if doublings < 0 else min(_LONGEST_WAIT, 2.0 ** min(doublings, 10))
        self._retry_at[number] = now + wait
        self._ends.append(now)

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
