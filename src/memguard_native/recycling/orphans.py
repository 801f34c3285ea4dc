"""What dead workers leave behind: processes that they have started end with them.

Most are in the worker's process group. Those in a session of their own, as MCP's clients start
their servers, become children of the supervisor, because orphans come to it.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable

from memguard_native.recycling.children import children_of, other_members, signal_group

_PATIENCE = 2.0  # from SIGTERM to SIGKILL
_LOOK_FOR = 2 * _PATIENCE


class Orphans:
    """`others()`: the supervisor's own children, which are not to be ended."""

    def __init__(self, others: Callable[[], set[int]]) -> None:
        self._others = others
        self._groups: dict[int, float] = {}  # group: when it is killed
        self._strays: dict[int, float] = {}  # process number: when it is killed
        self._bystanders = set(children_of(os.getpid()))
        self._look_until = -math.inf
        self._has_to_look = False

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of what dead workers have started."""
        return not self._groups and not self._strays and not self._has_to_look

    def end_group(self, group: int, now: float) -> None:
        """SIGTERM to all of a group at once; who is there two seconds later is killed."""
        if signal_group(group, signal.SIGTERM):
            self._groups[group] = now + _PATIENCE

    def worker_ended(self, now: float) -> None:
        """What comes to this process from now on, for a few seconds, was the dead worker's."""
        self._look_until = now + _LOOK_FOR
        self._has_to_look = True

    def look(self, now: float) -> None:
        """Ten times a second: signal those that have come, kill those that stay."""
        self._look_at_strays(now)
        for group, at in list(self._groups.items()):
            if now >= at:
                signal_group(group, signal.SIGKILL)
            if now >= at or not other_members(group):
                del self._groups[group]

    def _look_at_strays(self, now: float) -> None:
        children = set(children_of(os.getpid())) - self._others()
        # A standstill of this process may have been longer than the time to look: what it has to
        # look for, or has told to end, is not forgotten for that.
        if now > self._look_until and not self._has_to_look and not self._strays:
            self._bystanders = children  # there before, or come while no worker had ended
            return
        self._has_to_look = False
        for pid in self._strays.keys() - children:
            del self._strays[pid]
        for pid in children - self._bystanders - self._strays.keys():
            if _group_of(pid) not in self._groups:
                self._strays[pid] = now + _PATIENCE
                self._signal(pid, signal.SIGTERM)
        for pid, at in self._strays.items():
            self._look_until = now + _LOOK_FOR  # its own children come here when it ends
            if now >= at:
                self._signal(pid, signal.SIGKILL)
            if now >= at + _PATIENCE:  # nothing ends it, and the service must not wait for it
                self._bystanders.add(pid)
        for pid in self._strays.keys() & self._bystanders:
            del self._strays[pid]

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # it has become another user's
            self._bystanders.add(pid)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
