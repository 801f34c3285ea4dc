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
    """`others()`: the supervisor's own children, which are not to be ended, nor what is in their
    process groups."""

    def __init__(self, others: Callable[[], set[int]]) -> None:
        self._others = others
        self._groups: dict[int, float] = {}  # group: when it is killed
        self._strays: dict[int, float] = {}  # process number: when it is killed
        self._sessions: set[int] = set()  # of orphans that led one
        self._bystanders = set(children_of(os.getpid()))
        self._look_until = -math.inf
        self._has_to_look = False
        self._can_look = _has_own_proc()

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

    def child_ended(self, pid: int) -> None:
        """A child that was no worker is about to be reaped; the rest of its session may come."""
        if os.getsid(pid) == pid:
            self._sessions.add(pid)

    def spare_children(self) -> None:
        """What this process has for children now was started by its owner."""
        self._bystanders |= set(children_of(os.getpid()))

    def look(self, now: float) -> None:
        """Ten times a second: signal those that have come, kill those that stay."""
        self._look_at_strays(now)
        for group, at in list(self._groups.items()):
            if now >= at:
                signal_group(group, signal.SIGKILL)
            if not other_members(group) or now >= at + _PATIENCE:
                del self._groups[group]
                self.worker_ended(now)  # their own children come here

    def _look_at_strays(self, now: float) -> None:
        children = set(children_of(os.getpid())) - self._others() if self._can_look else set()
        # A standstill of this process may have been longer than the time to look: what it has to
        # look for, or has told to end, is not forgotten for that.
        if now > self._look_until and self.is_gone:
            self._bystanders = children  # there before, or come while no worker had ended
            self._sessions.clear()
            return
        self._has_to_look = False
        for pid in self._strays.keys() - children:
            del self._strays[pid]
        for pid in children - self._bystanders - self._strays.keys():
            if self._is_stray(pid):
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

    def _is_stray(self, pid: int) -> bool:
        """Whether it leads a session, as MCP's servers do, or is of one that an orphan led; or has
        a process group of its own within our session.

        Else it is of a group that is ended as such, or of a worker that lives; or nobody's: where
        this is the first process of a container, what `docker exec` has left comes here as well.
        """
        try:
            group, session = os.getpgid(pid), os.getsid(pid)
        except ProcessLookupError:
            return False
        if group in self._groups or group in self._others():
            return False
        if session == pid:
            self._sessions.add(pid)
        is_ours = session == os.getsid(0) and group != os.getpgrp()
        return session in self._sessions or is_ours

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # it has become another user's
            self._bystanders.add(pid)


def _has_own_proc() -> bool:
    """Not in a container that has another's /proc, where numbers mean other processes, or none."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False
