"""Probes of another process, of any language: what the system tells of it, without touching it.

Nothing is known of its malloc or of its Python, so all of its private memory counts as live. A
process is told by its id and the time of its start: a new one that gets the same id is not taken
for it. `sample()` raises ProcessGoneError when it has ended, a zombie included, and
ProcessDeniedError when this user may not look.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from memguard_native.errors import ProcessDeniedError, ProcessGoneError
from memguard_native.memory.foreign_group import group_of
from memguard_native.memory.probe import Probe
from memguard_native.memory.sample import MemorySample

_BYTES_PER_KB = 1024
_ENDED_STATES = "ZX"
# The fields of /proc/PID/stat behind the name, which may hold blanks and brackets: proc(5).
_STATE_FIELD = 0
_START_FIELD = 19


class ForeignProbe(Probe, Protocol):
    """A probe of the process `pid`."""

    pid: int
    name: str
    """What the system calls it."""

    def age(self) -> float:
        """Seconds since it started."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when the process ends if the system can tell."""
        ...


def foreign_probe(pid: int) -> ForeignProbe:
    """The best probe of this system. Raises ProcessGoneError, ProcessDeniedError."""
    return ProcProbe(pid) if sys.platform.startswith("linux") else PsutilForeignProbe(pid)


class ProcProbe:
    """Reads /proc, as anybody may."""

    def __init__(
        self, pid: int, *, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
    ) -> None:
        self.pid = pid
        self._proc = proc
        self._cgroups = cgroups
        self._descriptor: int | None = None  # before what may raise: __del__() looks at it
        self._descriptor = _descriptor_of(pid)
        with self._problems():
            self._started = self._stat()[_START_FIELD]
            self.name = self._read("comm").strip()

    def sample(self) -> MemorySample:
        """Its memory now. Raises ProcessGoneError, ProcessDeniedError."""
        start_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        with self._problems():
            lines = (line.partition(":") for line in self._read("status").splitlines())
            known = {name: value for name, _, value in lines}
            stat = self._stat()
        # Behind the status: what was read before this check is of this process.
        if stat[_START_FIELD] != self._started or stat[_STATE_FIELD] in _ENDED_STATES:
            raise ProcessGoneError(self.pid)
        group = group_of(self._proc, self.pid, self._cgroups)
        return MemorySample(
            start_ns,
            wall_ns,
            rss_bytes=_kilobytes(known.get("VmRSS")),
            anon_bytes=_kilobytes(known.get("RssAnon")),
            file_bytes=_kilobytes(known.get("RssFile")),
            shmem_bytes=_kilobytes(known.get("RssShmem")),
            swap_bytes=_kilobytes(known.get("VmSwap")),
            threads=int(known["Threads"]) if "Threads" in known else None,
            cgroup_usage_bytes=group.usage_bytes,
            cgroup_private_bytes=group.private_bytes,
            cgroup_limit_bytes=group.limit_bytes,
            sample_cost_ns=time.monotonic_ns() - start_ns,
        )

    def age(self) -> float:
        """Seconds since it started."""
        uptime = float((self._proc / "uptime").read_text().split()[0])
        return max(0.0, uptime - int(self._started) / os.sysconf("SC_CLK_TCK"))

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when the process ends, where the kernel tells (5.3)."""
        if self._descriptor is None:
            time.sleep(seconds)
            return
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(seconds * 1000)

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _stat(self) -> list[str]:
        return self._read("stat").rpartition(")")[2].split()

    def _read(self, name: str) -> str:
        return (self._proc / str(self.pid) / name).read_text(errors="replace")

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise ProcessDeniedError(self.pid, error.strerror or str(error)) from None
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGoneError(self.pid) from None


class PsutilForeignProbe:
    """Asks psutil."""

    def __init__(self, pid: int) -> None:
        # Here and not above: on Linux nothing of ours needs psutil.
        import psutil

        self.pid = pid
        self._psutil = psutil
        with self._problems():
            self._process = psutil.Process(pid)
            self.name = self._process.name()
            self._started = self._process.create_time()

    def sample(self) -> MemorySample:
        """Its memory now. Raises ProcessGoneError, ProcessDeniedError."""
        start_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        with self._problems(), self._process.oneshot():
            memory = self._process.memory_info()
            threads = self._process.num_threads()
            is_running = self._process.is_running()
        if not is_running:
            raise ProcessGoneError(self.pid)
        return MemorySample(
            start_ns,
            wall_ns,
            rss_bytes=memory.rss,
            anon_bytes=getattr(memory, "private", None),  # Windows
            threads=threads,
            sample_cost_ns=time.monotonic_ns() - start_ns,
        )

    def age(self) -> float:
        """Seconds since it started."""
        return max(0.0, time.time() - self._started)

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when the process ends."""
        with suppress(self._psutil.TimeoutExpired):
            self._process.wait(seconds)

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except self._psutil.AccessDenied as error:
            raise ProcessDeniedError(self.pid, str(error)) from None
        except self._psutil.NoSuchProcess:  # a zombie, too
            raise ProcessGoneError(self.pid) from None


def _descriptor_of(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _kilobytes(text: str | None) -> int | None:
    return None if text is None else int(text.split()[0]) * _BYTES_PER_KB
