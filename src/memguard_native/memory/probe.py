"""Probes: objects whose `sample()` tells the memory of this process now.

`NativeProbe` is the probe of Linux; elsewhere there is `PsutilProbe`, which knows less and costs
more. Any thread may use a probe, and a child of a fork sees its own memory. What cannot be read is
None in the sample: a probe does not raise for it.
"""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from memguard_native import _core
from memguard_native.memory.sample import MemorySample


class Probe(Protocol):
    """What a `MemoryMonitor` wants of a probe."""

    def sample(self) -> MemorySample:
        """The memory of this process now."""
        ...


class NativeProbe:
    """Reads /proc by descriptors that stay open, and malloc's own figures: about 10 us a sample.

    Where there is no native probe (`memguard_native._core.HAS_NATIVE_PROBE`) its samples are empty.
    """

    def __init__(self) -> None:
        self._core = _core.Probe()

    def sample(self) -> MemorySample:
        """The memory of this process now."""
        return MemorySample._make(self._core.sample())


class PsutilProbe:
    """Asks psutil: resident set and threads everywhere, private bytes and malloc where it can."""

    def __init__(self) -> None:
        # Here and not above: on Linux nothing of ours needs psutil.
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._malloc = _PsutilMalloc(getattr(psutil, "heap_info", None))

    def sample(self) -> MemorySample:
        """The memory of this process now."""
        start_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        if self._process.pid != os.getpid():  # after a fork it describes the parent
            self._process = self._psutil.Process()
        try:
            with self._process.oneshot():
                memory = self._process.memory_info()
                threads = self._process.num_threads()
        except (self._psutil.Error, OSError):
            return MemorySample(start_ns, wall_ns)
        in_use_bytes, mmap_bytes, age_ns = self._malloc.read(start_ns)
        return MemorySample(
            start_ns,
            wall_ns,
            rss_bytes=memory.rss,
            anon_bytes=getattr(memory, "private", None),  # Windows
            threads=threads,
            malloc_in_use_bytes=in_use_bytes,
            malloc_mmap_bytes=mmap_bytes,
            malloc_age_ns=age_ns,
            sample_cost_ns=time.monotonic_ns() - start_ns,
        )


class _PsutilMalloc:
    """malloc's figures from psutil >= 7.2, under the same budget as the native probe's."""

    def __init__(self, heap_info: Any) -> None:
        self._heap_info = heap_info
        self._budget = _core.CallBudget()
        self._read_at_ns = 0
        self._last: tuple[int, int] | None = None

    def read(self, now_ns: int) -> tuple[int | None, int | None, int | None]:
        """Bytes in use, those of them in blocks with mappings of their own, and their age."""
        if self._heap_info is not None and self._budget.due():
            start_ns = time.thread_time_ns()
            try:
                info = self._heap_info()
            except OSError:
                self._heap_info = None  # this system's malloc does not tell
                self._last = None
            else:
                self._last = (info.heap_used + info.mmap_used, info.mmap_used)
                self._read_at_ns = now_ns
            self._budget.record(time.thread_time_ns() - start_ns)
        if self._last is None:
            return None, None, None
        return *self._last, now_ns - self._read_at_ns


def default_probe() -> Probe:
    """The best probe of this system."""
    return NativeProbe() if _core.HAS_NATIVE_PROBE else PsutilProbe()
