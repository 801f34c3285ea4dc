"""Advice: what is known to cure growth of a certain cause. Pure; it is told and never set by us.

One row of the table is a function of the circumstances that answers with an `Advice` or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to try."""

    title: str
    """In a few words."""
    text: str
    """Why it helps, and what it costs."""
    setting: str
    """What to set or to write."""

    def to_dict(self) -> dict[str, str]:
        """All fields under their names."""
        return {"title": self.title, "text": self.text, "setting": self.setting}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What advice depends on."""

    cause: str
    """The cause that an `Alert` names."""
    modules: frozenset[str] = frozenset()
    """Names of the modules that are imported."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""
    allocator: str = "glibc"
    """"glibc", "jemalloc", "mimalloc" or "other"."""
    gc_enabled: bool = True
    """Whether Python collects cycles by itself."""
    gc_frozen: int = 0
    """Objects that `gc.freeze()` has exempted from it."""
    threads_grow: bool = False
    """Whether the number of threads grows."""


def advise(circumstances: Circumstances) -> list[Advice]:
    """What may help in these circumstances, the most likely first."""
    found = (row(circumstances) for row in _ROWS)
    return [advice for advice in found if advice is not None]


def _gc_disabled(c: Circumstances) -> Advice | None:
    if c.gc_enabled or c.cause not in ("python-objects", "unknown"):
        return None
    return Advice(
        title="the garbage collector is off",
        text="Objects that refer to each other in a cycle are never freed. Exceptions that keep "
        "their frames, callbacks and parsers make such cycles all the time.",
        setting="gc.enable(), or gc.collect() between requests",
    )


def _gc_frozen(c: Circumstances) -> Advice | None:
    if c.gc_frozen == 0 or c.cause not in ("python-objects", "unknown"):
        return None
    return Advice(
        title="objects are frozen",
        text=f"{c.gc_frozen:,} objects are exempt from the garbage collector since gc.freeze(). "
        "That is right for what lives as long as the process; cycles among them are never freed.",
        setting="call gc.freeze() once, before the first request; gc.unfreeze() undoes it",
    )


def _onnxruntime(c: Circumstances) -> Advice | None:
    if "onnxruntime" not in c.modules or c.cause not in _ALLOCATED:
        return None
    return Advice(
        title="onnxruntime keeps memory for every shape of input",
        text="Its arena grows to the largest run and gives nothing back, and it remembers a plan "
        "for each shape. With inputs of many lengths both grow. A run then takes somewhat longer; "
        "padding inputs to a few lengths helps as well.",
        setting="options = onnxruntime.SessionOptions(); options.enable_cpu_mem_arena = False; "
        "options.enable_mem_pattern = False",
    )


def _onednn(c: Circumstances) -> Advice | None:
    # torch has it built in; so has onnxruntime if its provider is chosen, and tensorflow on x86.
    if not {"torch", "tensorflow"} & c.modules or c.cause not in _ALLOCATED:
        return None
    if "ONEDNN_PRIMITIVE_CACHE_CAPACITY" in c.environment:
        return None
    return Advice(
        title="oneDNN caches compiled operations by shape",
        text="It keeps 1024 of them, each with code and buffers: inputs of many shapes fill it "
        "over hours. A smaller cache compiles again what it dropped; fixed shapes help as well.",
        # The second one is for torch's own list of them (pytorch#98688).
        setting="ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 LRU_CACHE_CAPACITY=64 in the environment",
    )


def _arenas(c: Circumstances) -> Advice | None:
    if c.cause != "fragmentation" or c.allocator != "glibc" or _names_arenas(c.environment):
        return None
    return Advice(
        title="malloc has an arena for each of many threads",
        text="glibc makes up to 8 arenas a core, and what is free in one of them is not used by "
        "another. Two are enough for most services, since the GIL lets one thread run at a time.",
        setting="MALLOC_ARENA_MAX=2 in the environment",
    )


def _names_arenas(environment: Mapping[str, str]) -> bool:
    return "MALLOC_ARENA_MAX" in environment or "glibc.malloc.arena_max" in environment.get(
        "GLIBC_TUNABLES", ""
    )


def _mmap_threshold(c: Circumstances) -> Advice | None:
    if c.cause != "fragmentation" or c.allocator != "glibc":
        return None
    if "MALLOC_MMAP_THRESHOLD_" in c.environment or (
        "glibc.malloc.mmap_threshold" in c.environment.get("GLIBC_TUNABLES", "")
    ):
        return None
    return Advice(
        title="large blocks lie among small ones",
        text="malloc gives blocks from 128 KiB a mapping of their own, which goes back to the "
        "system at once; but with every such block that is freed it raises that limit, up to 32 "
        "MiB, and the next ones fall among small ones and leave holes. A limit that is set stays. "
        "Each large block then costs a system call and fresh pages.",
        setting="MALLOC_MMAP_THRESHOLD_=131072 in the environment, or mallopt(M_MMAP_THRESHOLD, "
        "131072)",
    )


def _other_allocator(c: Circumstances) -> Advice | None:
    if c.cause != "fragmentation" or c.allocator != "glibc":
        return None
    return Advice(
        title="another allocator",
        text="jemalloc keeps blocks of one size together and gives free pages back by itself, "
        "after 10 seconds. It is preloaded and needs no change of the program.",
        setting="LD_PRELOAD=libjemalloc.so.2 in the environment",
    )


def _survivors(c: Circumstances) -> Advice | None:
    if c.cause != "fragmentation":
        return None
    return Advice(
        title="few objects that live long keep much that is free",
        text="An arena of Python's own allocator, 1 MiB of small objects, goes back to the system "
        "only when it is all free. What lives long is best made at the start, before requests; "
        "replacing the worker now and then cures the rest.",
        setting="load caches, models and configuration before the first request",
    )


def _threads(c: Circumstances) -> Advice | None:
    if c.cause != "mmap" or not c.threads_grow:
        return None
    return Advice(
        title="threads are started and do not end",
        text="Each has a stack, 8 MiB of addresses of which it touches some 100 KiB, and may have "
        "an arena of malloc. A pool with an upper bound ends the growth; smaller stacks make it "
        "slower.",
        setting="concurrent.futures.ThreadPoolExecutor(max_workers=...); threading.stack_size(1 "
        "<< 20) before they start",
    )


def _mappings(c: Circumstances) -> Advice | None:
    if c.cause != "mmap" or c.threads_grow:
        return None
    return Advice(
        title="mappings are made and not closed",
        text="mmap.mmap objects, memory-mapped arrays, or a library with an allocator of its own. "
        "A mapping of Python's lives as long as something refers to it, views of it included.",
        setting="mmap.close(), or `with mmap.mmap(...)`",
    )


def _shared_memory(c: Circumstances) -> Advice | None:
    if c.cause != "shared-memory":
        return None
    return Advice(
        title="shared memory is not given back",
        text="A SharedMemory block needs close() in each process and unlink() once, in the one "
        "that made it; a file in /dev/shm or a memfd takes memory until it is removed and nobody "
        "has it open. Tensors that torch sends between processes are such blocks too.",
        setting="multiprocessing.managers.SharedMemoryManager, or close() and unlink() in finally",
    )


# Causes that a library with allocations of its own can have.
_ALLOCATED = frozenset({"native-heap", "fragmentation", "mmap", "unknown"})

_ROWS = (
    _gc_disabled,
    _gc_frozen,
    _onnxruntime,
    _onednn,
    _arenas,
    _mmap_threshold,
    _other_allocator,
    _survivors,
    _threads,
    _mappings,
    _shared_memory,
)
