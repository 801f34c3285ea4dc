"""Which code asked for the memory that is alive: by a sampled profile, or by tracemalloc.

`NativeProfile` samples about every 512 KiB that Python allocates and knows only what was allocated
since it began. Where tracemalloc runs already, because the user started it, two of its snapshots
are compared instead: it knows everything, and its cost is paid anyway. Sites are told as function,
file and line; never values.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from memguard_native import _core

_TOP = 10

_Frames = tuple[tuple[str, str, int], ...]
"""Function, file and line, the innermost first."""

# Of each trace tracemalloc makes a tuple of some 200 bytes for a snapshot, with the GIL held.
_MOST_BLOCKS_FOR_SNAPSHOT = 1_000_000


class AllocationProfile(Protocol):
    """Something that watches allocations between two calls, on one thread."""

    def start(self, seconds: float) -> None:
        """Begin; it ends by itself when so many seconds are over. Raises RuntimeError."""

    def stop(self) -> dict[str, Any]:
        """End, and tell the top sites in a form ready for JSON."""
        ...

    def cancel(self) -> None:
        """End without a look at what was found."""


class NativeProfile:
    """The sampled profile of the native core. One at a time in a process."""

    def __init__(self, interval_bytes: int = 512 * 1024) -> None:
        self._interval_bytes = interval_bytes

    def start(self, seconds: float) -> None:
        _core.start_allocation_profile(seconds=seconds, interval_bytes=self._interval_bytes)

    def stop(self) -> dict[str, Any]:
        found = _core.stop_allocation_profile()
        if found is None:
            raise RuntimeError("the profile was ended by somebody else")
        stacks = _by_lines(found["stacks"])
        return {
            "kind": "sampled",
            "seconds": found["seconds"],
            "interval_bytes": self._interval_bytes,
            "samples": found["samples"],
            "samples_dropped": found["dropped"],
            "live_bytes": sum(row[0] for row in stacks),
            "sampling_ms": found["sampling_seconds"] * 1000.0,
            "sites": [_site(*row) for row in stacks[:_TOP]],
        }

    def cancel(self) -> None:
        _core.stop_allocation_profile()


def _by_lines(rows: Iterable[tuple[int, int, int, _Frames]]) -> list[tuple[int, int, int, _Frames]]:
    """Rows of one stack of lines added up, those that last first: a line may allocate in places."""
    sums: dict[_Frames, list[int]] = {}
    for *figures, frames in rows:
        sums[frames] = [a + b for a, b in zip(sums.get(frames, (0, 0, 0)), figures, strict=True)]
    stacks = [(live, lasting, count, frames) for frames, (live, lasting, count) in sums.items()]
    return sorted(stacks, key=lambda row: (row[1], row[0]), reverse=True)


def _site(live_bytes: int, lasting_bytes: int, samples: int, frames: _Frames) -> dict[str, Any]:
    return {
        "live_bytes": live_bytes,
        # Alive although it was allocated in the first half: what is only passing by is not in it.
        "lasting_bytes": lasting_bytes,
        "samples": samples,
        "stack": [
            {"function": function, "file": file, "line": line} for function, file, line in frames
        ],
    }


class TracemallocProfile:
    """The difference of two snapshots of tracemalloc, which runs already and goes on running."""

    def __init__(self, block_count: Callable[[], int] = sys.getallocatedblocks) -> None:
        self._block_count = block_count
        self._before: Any = None

    def start(self, seconds: float) -> None:
        self._before = self._snapshot()

    def stop(self) -> dict[str, Any]:
        before, self._before = self._before, None
        differences = self._snapshot().compare_to(before, "lineno")
        grown = sorted((d for d in differences if d.size_diff > 0), key=lambda d: -d.size_diff)
        return {
            "kind": "tracemalloc",
            "growth_bytes": sum(d.size_diff for d in differences),
            "sites": [
                {
                    "live_bytes": d.size,
                    "growth_bytes": d.size_diff,
                    "stack": [
                        {"function": "?", "file": frame.filename, "line": frame.lineno}
                        for frame in reversed(d.traceback)  # the innermost first
                    ],
                }
                for d in grown[:_TOP]
            ],
        }

    def cancel(self) -> None:
        self._before = None

    def _snapshot(self) -> Any:
        import tracemalloc

        if not tracemalloc.is_tracing():
            raise RuntimeError("tracemalloc was stopped")
        blocks = self._block_count()
        if blocks > _MOST_BLOCKS_FOR_SNAPSHOT:
            raise RuntimeError(f"{blocks:,} blocks are too many for a snapshot of tracemalloc")
        return tracemalloc.take_snapshot()


def best_profile() -> AllocationProfile:
    """tracemalloc's if it runs already, else the sampled one. Never starts tracemalloc."""
    tracemalloc = sys.modules.get("tracemalloc")
    if tracemalloc is not None and tracemalloc.is_tracing():
        return TracemallocProfile()
    # PYTHONTRACEMALLOC starts the tracing without the module of that name.
    if getattr(sys.modules.get("_tracemalloc"), "is_tracing", bool)():
        return TracemallocProfile()
    return NativeProfile()


# The hooks must not outlive the objects that they refer to; and a child of a fork has no use for
# the parent's profile, nor anybody who would end it.
atexit.register(_core.stop_allocation_profile)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forget_allocation_profile)
