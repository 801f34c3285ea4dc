"""From when to when each worker of a server was there, seen alike for every server.

A worker is there from the moment at which the app in it has ended its start-up, by its own note, to
the first of two: the app is asked to shut down, which servers do once a worker accepts no more and
its connections are closed; or its process ends. A server that has yet to listen, or closes its
connections first, has some milliseconds more: that counts in its favour.

Times are those of `time.monotonic`, which all processes of a Linux system share.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Life:
    """One worker process; `ended_at` is None as long as it is there."""

    pid: int
    started_at: float
    ready_at: float
    ended_at: float | None = None

    @property
    def boot(self) -> float:
        """Seconds from the start of its process to the end of the app's start-up."""
        return self.ready_at - self.started_at


@dataclass(frozen=True)
class Shortage:
    """Seconds with fewer workers than were wanted, and with none."""

    below: float
    none: float


class Lives:
    """The workers of one server, as of the last `look`; `on_ready` hears of each new one."""

    def __init__(self, path: Path, on_ready: Callable[[Life], None] = lambda life: None) -> None:
        self.all: list[Life] = []
        self._path = path
        self._on_ready = on_ready
        self._read = 0
        self._exits: dict[int, Life] = {}
        self._poll = select.poll()

    @property
    def present(self) -> list[Life]:
        return [life for life in self.all if life.ended_at is None]

    def look(self) -> None:
        """Take in what has become ready or has ended since the last time."""
        for line in self._new_lines():
            what, pid, at = line.split()
            if what == "ready":
                self._begin(int(pid), float(at))
            else:
                self._end(int(pid), float(at))
        for descriptor, _ in self._poll.poll(0):
            life = self._exits.pop(descriptor)
            self._poll.unregister(descriptor)
            os.close(descriptor)
            if life.ended_at is None:
                life.ended_at = time.monotonic()

    def close(self) -> None:
        for descriptor in self._exits:
            os.close(descriptor)
        self._exits.clear()

    def _new_lines(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError), self._path.open() as file:
            file.seek(self._read)
            text = file.read()
            self._read += len(text)
            return text.splitlines()
        return []

    def _begin(self, pid: int, at: float) -> None:
        try:
            descriptor = os.pidfd_open(pid)
            life = Life(pid, _started_at(pid), at)
        except (ProcessLookupError, FileNotFoundError):  # gone before it was seen
            self.all.append(Life(pid, at, at, ended_at=at))
            return
        self.all.append(life)
        self._exits[descriptor] = life
        self._poll.register(descriptor, select.POLLIN)
        self._on_ready(life)

    def _end(self, pid: int, at: float) -> None:
        for life in self.present:
            if life.pid == pid:
                life.ended_at = at


def shortage(lives: Iterable[Life], wanted: int, start: float, end: float) -> Shortage:
    """How long, from start to end, fewer than `wanted` of them were there."""
    changes = [(start, 0), (end, 0)]
    for life in lives:
        gone = end if life.ended_at is None else life.ended_at
        if life.ready_at < end and gone > start:
            changes += [(max(life.ready_at, start), 1), (min(gone, end), -1)]
    below = none = 0.0
    there, since = 0, start
    for at, change in sorted(changes):
        if there < wanted:
            below += at - since
        if there == 0:
            none += at - since
        there, since = there + change, at
    return Shortage(below, none)


def _started_at(pid: int) -> float:
    """When the process began, to 10 ms: the kernel counts it so."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    since_boot = int(stat.rpartition(")")[2].split()[19]) / _TICKS_PER_S
    return since_boot - (time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic())
