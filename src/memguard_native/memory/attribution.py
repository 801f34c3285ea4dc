"""What grows: the growth of private memory by parts, and the name of its cause.

    private = python arenas + malloc in use + malloc free + shared + other

"Other" are anonymous mappings, stacks of threads, and other allocators. The counts of Python's
blocks and of threads tell apart what the bytes cannot: an object of more than 512 bytes is a block
of malloc too.

Pure functions on a `MinuteSeries`. Where the numbers come from: programs of which it was known what
they leak. There Python objects took at most 1.4 KB per block, C buffers at least 10 KB.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from memguard_native.memory.minutes import Column, MinuteSeries
from memguard_native.memory.slopes import rate_of_medians

CAUSES = (
    "python-objects",
    "native-heap",
    "fragmentation",
    "mmap",
    "shared-memory",
    "unknown",
)
PARTS = ("python_arenas", "malloc_in_use", "malloc_free", "shared", "other")

# Blocks per MB: 200 are 5 KB each, 500 are 2 KB (a pool of which most is used). Mappings of 256 KB
# came with 9, pools that a single object keeps with at least 64.
_OBJECTS_IN_MALLOC = 200.0
_OBJECTS_IN_ARENAS = 500.0
_HARDLY_ANY = 30.0
_THREADS_PER_HOUR = 3.0
# A stack takes 8 MB of address space, but only what was touched of it is memory.
_MB_PER_THREAD = 1.0


class Attribution(NamedTuple):
    """The cause of a growth."""

    cause: str
    text: str
    parts_mb_per_hour: dict[str, float]


def attribute(series: MinuteSeries, window_minutes: int, *, fragmented: bool) -> Attribution:
    """The cause of the growth over the last `window_minutes`.

    `fragmented`: private memory grows and live memory does not, so that what malloc keeps free
    may be the cause; else it is not, whatever it does.
    """
    parts = {
        part: rate
        for part in PARTS
        if (rate := _rate_now(series.column(part), window_minutes)) is not None
    }
    blocks_per_hour = _rate(series.column("blocks"), window_minutes)
    threads_per_hour = _rate(series.column("threads"), window_minutes) or 0.0
    live_per_hour = _rate(series.column("live"), window_minutes)
    if (
        threads_per_hour >= _THREADS_PER_HOUR
        and live_per_hour is not None
        and live_per_hour <= _MB_PER_THREAD * threads_per_hour
    ):
        text = f"thread stacks: {threads_per_hour:.1f} new threads an hour that do not end"
        return Attribution("mmap", text, parts)
    competing = {part: rate for part, rate in parts.items() if fragmented or part != "malloc_free"}
    if "malloc_free" in competing:
        # What the program has just freed is free memory too, but none that makes anything grow.
        freed = max(0.0, -competing["malloc_in_use"])
        competing["malloc_free"] -= freed
    if not competing:
        return Attribution("unknown", "nothing is known of the parts of memory", parts)
    largest = max(competing, key=lambda part: competing[part])
    rate = competing[largest]
    if rate <= 0:
        return Attribution("unknown", "no part of memory grows", parts)
    blocks_per_mb = None if blocks_per_hour is None else blocks_per_hour / rate
    cause, text = _name(largest, blocks_per_mb, parts.keys())
    return Attribution(cause, text, parts)


def _name(part: str, blocks_per_mb: float | None, known_parts: Collection[str]) -> tuple[str, str]:
    if part == "shared":
        return "shared-memory", "shared mappings (memfd, multiprocessing, mmap) that stay"
    if part == "malloc_free":
        return "fragmentation", "malloc keeps freed memory: holes too small for what comes next"
    if part == "malloc_in_use":
        if blocks_per_mb is None:
            return "native-heap", "blocks of malloc; how many Python objects are in them is unknown"
        if blocks_per_mb >= _OBJECTS_IN_MALLOC:
            return "python-objects", f"Python objects, {blocks_per_mb:.0f} for each MB"
        return "native-heap", "large blocks of malloc with few Python objects: buffers of a library"
    if blocks_per_mb is None:
        return "unknown", "memory outside of malloc; Python's objects are not counted"
    if part == "other" and "malloc_in_use" not in known_parts:
        if blocks_per_mb >= _OBJECTS_IN_MALLOC:
            return "python-objects", f"Python objects, {blocks_per_mb:.0f} for each MB"
        return "unknown", "memory with few Python objects; what malloc has of it is not known"
    # Without a count of the arenas they are in the rest: then the blocks tell.
    are_in_rest = "python_arenas" not in known_parts and blocks_per_mb >= _HARDLY_ANY
    if part == "python_arenas" or are_in_rest:
        if blocks_per_mb >= _OBJECTS_IN_ARENAS:
            return "python-objects", f"small Python objects, {blocks_per_mb:.0f} for each MB"
        return "fragmentation", "pools of Python's allocator, each kept by a few objects"
    return "mmap", "anonymous mappings outside of malloc and of Python's allocator"


def _rate_now(part: Column, window_minutes: int) -> float | None:
    # What is not known any more has gone into the rest, see `MinuteSeries`.
    return _rate(part, window_minutes) if len(part) and not np.isnan(part[-1]) else None


def _rate(values: Column, window_minutes: int) -> float | None:
    rate = rate_of_medians(values, window_minutes)
    return None if np.isnan(rate) else rate
