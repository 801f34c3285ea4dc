"""Probes: objects whose `sample()` tells the memory of this process now.

`NativeProbe` is the probe of Linux; elsewhere there is `PsutilProbe`, which knows less and costs
more. Any thread may use a probe, and a child of a fork sees its own memory. What cannot be read is
None in the sample: a probe does not raise for it. `BlockCounter` and `memory.gpu` read what needs
the GIL, on the thread that a sample is delivered to; `memory_footprint()` reads on demand what is
too dear for any sampler.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from memguard_native import _core
from memguard_native.memory.sample import OLDEST_NS, MemorySample

_T = TypeVar("_T")


class Probe(Protocol):
    """What a `MemoryMonitor` wants of a probe."""

    def sample(self) -> MemorySample:
        """The memory of this process now."""
        ...


class NativeProbe:
    """Reads /proc by descriptors that stay open, malloc's figures, CPython's arenas, the group.

    About 20 us a sample, three quarters of it for the control group, whatever the size of the
    process. It never reads smaps. Where there is no native probe
    (`memguard_native._core.HAS_NATIVE_PROBE`) its samples have arenas and load alone.

    `load` is read with each sample; another `root` before /proc and /sys is for tests.
    """

    def __init__(self, *, load: _core.LoadGauge | None = None, root: str = "") -> None:
        self._core = _core.Probe(load=load, root=root)

    def sample(self) -> MemorySample:
        """The memory of this process now."""
        return MemorySample._make(self._core.sample())


class PsutilProbe:
    """Asks psutil: resident set and threads everywhere, private bytes and malloc where it can.

    CPython's arenas and `load` are known as with the native probe. psutil knows no control groups,
    no free blocks of malloc, and private memory on Windows only.
    """

    def __init__(self, *, load: _core.LoadGauge | None = None) -> None:
        # Here and not above: on Linux nothing of ours needs psutil.
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._load = load
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
            python_arena_bytes=_core.python_arena_bytes(),
            malloc_in_use_bytes=in_use_bytes,
            malloc_mmap_bytes=mmap_bytes,
            malloc_age_ns=age_ns,
            load=None if self._load is None else self._load.value,
            sample_cost_ns=time.monotonic_ns() - start_ns,
        )


class _Budgeted(Generic[_T]):
    """A reading that can become dear, made under a budget; carried over with its age.

    `ask` may raise OSError: then it is not asked again, and there is no reading.
    """

    def __init__(self, ask: Callable[[], _T]) -> None:
        self._ask: Callable[[], _T] | None = ask
        self._budget = _core.CallBudget()
        self._last: _T | None = None
        self._read_at_ns = 0

    def read(self, now_ns: int) -> tuple[_T, int] | None:
        """The newest reading and how old it is."""
        if self._ask is not None and self._budget.due():
            # The thread's own time: waiting for a processor or for the GIL is not the call's cost.
            start_ns = time.thread_time_ns()
            try:
                self._last = self._ask()
                self._read_at_ns = now_ns
            except OSError:
                self._ask = self._last = None
            self._budget.record(time.thread_time_ns() - start_ns)
        return None if self._last is None else (self._last, now_ns - self._read_at_ns)


class _PsutilMalloc:
    """malloc's figures from psutil >= 7.2, under the same budget as the native probe's."""

    def __init__(self, heap_info: Any) -> None:
        self._info = None if heap_info is None else _Budgeted(heap_info)

    def read(self, now_ns: int) -> tuple[int | None, int | None, int | None]:
        """Bytes in use, those of them in blocks with mappings of their own, and their age."""
        found = None if self._info is None else self._info.read(now_ns)
        if found is None:
            return None, None, None
        info, age_ns = found
        return info.heap_used + info.mmap_used, info.mmap_used, age_ns


class BlockCounter:
    """How many blocks CPython's allocators have given out: `sys.getallocatedblocks()`, budgeted.

    That walks all arenas under the GIL, 0.75 us in a fresh process and 58 us at 2 million blocks,
    so it belongs to a thread of Python's, once a sample. For one thread at a time.
    """

    def __init__(
        self,
        count: Callable[[], int] = sys.getallocatedblocks,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._blocks = _Budgeted(count)
        self._clock_ns = clock_ns
        # Without the GIL it would count the blocks of the calling thread alone.
        self._counts_all = "free-threading" not in sys.version

    def read(self) -> int | None:
        """Blocks; None where they are not counted, or were not for 10 minutes."""
        found = self._blocks.read(self._clock_ns()) if self._counts_all else None
        if found is None:
            return None
        blocks, age_ns = found
        # 0: PYTHONMALLOC=malloc, where there are no blocks to count.
        return blocks if blocks > 0 and age_ns <= OLDEST_NS else None


class MemoryFootprint(NamedTuple):
    """What would be free if this process ended, and its share of what it shares."""

    uss_bytes: int
    """Resident memory that no other process maps."""
    pss_bytes: int | None
    """That, and of each page that others map too a part; None where the system does not tell."""


def memory_footprint() -> MemoryFootprint | None:
    """Look through every page of this process, once; None where it cannot be done.

    The sampler never does this: it takes 0.2 ms in a fresh process and 30 ms at 2 GiB in 12,000
    maps, in which no thread can map memory. For people who ask, and for evidence.
    """
    if _core.HAS_NATIVE_PROBE:
        try:
            with open("/proc/self/smaps_rollup") as file:
                return parse_rollup(file.read())
        except OSError:
            return None
    import psutil

    try:
        memory = psutil.Process().memory_full_info()
    except (psutil.Error, OSError):
        return None
    return MemoryFootprint(memory.uss, getattr(memory, "pss", None))


def parse_rollup(text: str) -> MemoryFootprint | None:
    """What the text of a smaps_rollup says; None if it is none."""
    rows = dict(re.findall(r"^(\w+):\s*(\d+) kB$", text, re.MULTILINE))
    try:
        uss_kib = int(rows["Private_Clean"]) + int(rows["Private_Dirty"])
        return MemoryFootprint(uss_kib * 1024, int(rows["Pss"]) * 1024)
    except KeyError:
        return None


def default_probe(load: _core.LoadGauge | None = None) -> Probe:
    """The best probe of this system; it reads `load` with each sample."""
    return NativeProbe(load=load) if _core.HAS_NATIVE_PROBE else PsutilProbe(load=load)
