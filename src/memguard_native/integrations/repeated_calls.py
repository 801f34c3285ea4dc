"""`find_leak` calls a function again and again and says what grows with the calls.

Calls are made in batches, with a full collection and a reading between them. What is read does not
jitter: blocks of Python's allocator, bytes in use of malloc, address space outside of both, file
descriptors, threads. The rule, for each of these: it leaks if its retained floor (what is not given
back by a later batch) grew in each of the newest batches, and did not fade: a cache that fills, or
a pool, grows for a while and stops. It is quiet if the newest two batches left nothing behind.
Until all are quiet, or one leaks, calls go on, up to a bound.

Only for something that leaks three more batches are run, two under tracemalloc, to say what it is.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from memguard_native.memory.probe import default_probe

MOST_BATCHES = 20
"""Twice as many as a cache needs to be seen fading, and some."""

# Of growth in the first half of the batches that are judged: less than this in the second half is
# fading. The detector's rule against slowing growth has the same figure.
_FADING = 0.6
_BYTES_PER_KB = 1024
_MOST_TOLD = 5
# A call: what was left once, and not by the calls, is not told.
_LEAST_OBJECTS = 0.6
_LEAST_BYTES = 4.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that can grow."""

    name: str
    unit: str
    noise: float
    """Growth per call up to this is none."""
    batches: int
    """So many batches in a row must have grown."""


# Half a block: a leak of one object in every second call is still found. 32 bytes: the smallest
# chunk of malloc. Half a page: the smallest mapping is a page. Of descriptors and threads a process
# has few, so they are judged before it runs out of them.
KINDS = (
    Kind("Python objects", "blocks", 0.5, 6),
    Kind("native heap, and Python objects over 512 bytes", "bytes", 32.0, 6),
    Kind("mapped memory", "bytes", 2048.0, 6),
    Kind("file descriptors", "", 0.0, 3),
    Kind("threads", "", 0.0, 3),
)
_BLOCKS = KINDS[0]


@dataclass(frozen=True, slots=True)
class Growth:
    """One kind that leaks."""

    kind: Kind
    per_call: float
    per_batch: tuple[int, ...]
    """Of the batches it was judged by."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What grows with the calls of a function, and what is known of it."""

    calls: int
    growths: tuple[Growth, ...]
    types: tuple[tuple[str, float], ...]
    """Types of objects known to the collector, and how many more of them each call leaves."""
    lines: tuple[tuple[str, float], ...]
    """Lines that allocated what is left, and how many bytes of it each call leaves."""
    descriptors: tuple[tuple[str, int], ...]
    """What descriptors are of that a batch left open, and how many."""
    threads: tuple[tuple[str, int], ...]
    """Names of threads that a batch left running, and how many."""

    def __str__(self) -> str:
        return "\n".join(self._told())

    def _told(self) -> list[str]:
        told = [f"no_leak: memory grew with each batch of calls ({self.calls} calls so far)"]
        for growth in self.growths:
            steps = " ".join(f"{step:+d}" for step in growth.per_batch)
            unit = f" {growth.kind.unit}" if growth.kind.unit else ""
            told.append(f"  {growth.kind.name}: {growth.per_call:+.1f}{unit} a call")
            told.append(f"    by batch: {steps}")
        for title, found in (
            ("types that grow, objects a call:", self.types),
            ("allocated at, bytes a call:", self.lines),
        ):
            if found:
                told.append(title)
                told += [f"  {amount:+10.1f}  {name}" for name, amount in found]
        for title, left in (
            ("left open by the newest batch:", self.descriptors),
            ("left running by the newest batch:", self.threads),
        ):
            if left:
                told.append(title)
                told += [f"  {number:10d}  {name}" for name, number in left]
        return told


def find_leak(
    call: Callable[[], object],
    *,
    iterations: int = 50,
    warm_up: int = 10,
    tolerance_kb: float = 0.0,
) -> Leak | None:
    """What `call` leaks; None if nothing grows with its calls.

    Args:
        call: may raise, which ends it all.
        iterations: calls in a batch.
        warm_up: calls before the first reading, at least 1.
        tolerance_kb: that each call may leave behind, in KB of 1024 bytes. Descriptors and threads
            are not tolerated.
    """
    call()  # what it warns of is told once
    _run(call, warm_up - 1)
    readings = tuple(array("q", bytes(8 * (MOST_BATCHES + 1))) for _ in KINDS)
    _read(readings, 0)
    for batch in range(1, MOST_BATCHES + 1):
        _run(call, iterations)
        _read(readings, batch)
        judged = [
            judge(kind, column[: batch + 1], iterations, tolerance_kb * _BYTES_PER_KB)
            for kind, column in zip(KINDS, readings, strict=True)
        ]
        growths = tuple(one for one in judged if isinstance(one, Growth))
        if growths:
            return _explain(call, growths, warm_up + batch * iterations, iterations, tolerance_kb)
        if all(one == "quiet" for one in judged):
            return None
    return None


def judge(
    kind: Kind, readings: Sequence[int], iterations: int, tolerance_bytes: float
) -> Growth | str:
    """The growth, if this is a leak; "quiet", or "unclear". Pure.

    `readings` are of before the first batch and after each.
    """
    allowed = kind.noise
    if kind.unit == "bytes":
        allowed = max(allowed, tolerance_bytes)
    allowed *= iterations
    steps = [later - earlier for earlier, later in pairwise(readings)]
    if len(steps) >= 2 and max(steps[-2:]) <= allowed:
        return "quiet"
    floor = _retained_floor(readings)
    rises = [later - earlier for earlier, later in pairwise(floor)]
    newest = rises[-kind.batches :]
    if len(rises) >= kind.batches and min(newest) > allowed and not _fades(newest):
        return Growth(kind, sum(newest) / len(newest) / iterations, tuple(newest))
    # Growth in every second or third batch only: the whole is judged when no more calls are made.
    mean = sum(rises) / max(1, len(rises))
    if len(rises) >= MOST_BATCHES and mean > allowed and not _fades(rises):
        return Growth(kind, mean / iterations, tuple(rises))
    return "unclear"


def _retained_floor(readings: Sequence[int]) -> list[int]:
    floor = list(readings)
    for place in range(len(floor) - 2, -1, -1):
        floor[place] = min(floor[place], floor[place + 1])
    return floor


def _fades(rises: Sequence[int]) -> bool:
    half = len(rises) // 2
    return sum(rises[-half:]) < _FADING * sum(rises[:half])


def _run(call: Callable[[], object], times: int) -> None:
    # The filters stay; what is recorded of warnings, by a test runner for example, would grow.
    with warnings.catch_warnings(record=True):
        for _ in range(times):
            call()


def _read(readings: Sequence[array[int]], place: int) -> None:
    _collect()
    figures = (
        sys.getallocatedblocks(),
        *_native_bytes(),
        len(_descriptor_names()[1]),
        threading.active_count(),
    )
    for column, figure in zip(readings, figures, strict=True):
        column[place] = figure


def _collect() -> None:
    # Finalizers make new garbage.
    for _ in range(3):
        if gc.collect() == 0:
            break


def _native_bytes() -> tuple[int, int]:
    # A new probe each time: one that finds malloc's figures dear gives old ones.
    sample = default_probe().sample()
    used, free = sample.malloc_in_use_bytes, sample.malloc_free_bytes
    if used is None:
        return sample.private_bytes or sample.rss_bytes or 0, 0
    if free is None or not sys.platform.startswith("linux"):
        return used, 0
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    return used, space_bytes - used - free - (sample.python_arena_bytes or 0)


def _descriptor_names() -> tuple[str, list[str]]:
    """A directory and the descriptors in it, the one included by which they are listed."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return directory, os.listdir(directory)
        except OSError:
            continue
    return "", []


# --- evidence -------------------------------------------------------------------------------------


def _explain(
    call: Callable[[], object],
    growths: tuple[Growth, ...],
    calls: int,
    iterations: int,
    tolerance_kb: float,
) -> Leak | None:
    types, descriptors, threads = _census(), _descriptors(), set(threading.enumerate())
    _run(call, iterations)
    _collect()
    grown = _census()
    grown.subtract(types)
    opened = Counter(target for _, target in _descriptors().items() - descriptors.items())
    # "Thread-17 (wait)": of those it matters how many, and not which.
    started = Counter(
        re.sub(r"\d+", "N", one.name) for one in threading.enumerate() if one not in threads
    )
    lines = _allocating_lines(call, iterations)
    # Blocks are no bytes: only now it is known how many they are.
    is_of_blocks = all(growth.kind is _BLOCKS for growth in growths)
    # Without what other threads gave back meanwhile.
    left_kb = sum(left_bytes for _, left_bytes in lines if left_bytes > 0) / _BYTES_PER_KB
    if tolerance_kb > 0 and is_of_blocks and left_kb <= tolerance_kb:
        return None
    return Leak(
        calls=calls,
        growths=growths,
        types=_top(((name, more / iterations) for name, more in grown.items()), _LEAST_OBJECTS),
        lines=_top(lines, _LEAST_BYTES),
        descriptors=tuple(opened.most_common(_MOST_TOLD)),
        threads=tuple(started.most_common(_MOST_TOLD)),
    )


def _allocating_lines(call: Callable[[], object], iterations: int) -> list[tuple[str, float]]:
    """Lines, and how many bytes that they allocated each call leaves."""
    import tracemalloc

    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        # A container that was there before counts with all of its bytes when it is resized first.
        _run(call, iterations)
        _collect()
        before = tracemalloc.take_snapshot()
        _run(call, iterations)
        _collect()
        after = tracemalloc.take_snapshot()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    ours = [tracemalloc.Filter(False, name) for name in (__file__, tracemalloc.__file__)]
    lines = after.filter_traces(ours).compare_to(before.filter_traces(ours), "lineno")
    return [(str(line.traceback), line.size_diff / iterations) for line in lines]


def _census() -> Counter[str]:
    return Counter(
        f"{type(one).__module__}.{type(one).__qualname__}".removeprefix("builtins.")
        for one in gc.get_objects()
    )


def _top(found: Iterable[tuple[str, float]], least: float) -> tuple[tuple[str, float], ...]:
    grown = (one for one in found if one[1] >= least)
    return tuple(sorted(grown, key=lambda one: -one[1])[:_MOST_TOLD])


def _descriptors() -> dict[str, str]:
    """What each is of."""
    found = {}
    directory, names = _descriptor_names()
    for name in names:
        try:
            found[name] = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:  # the one by which they were listed
            continue
        except OSError:  # no link: a system without /proc
            found[name] = f"descriptor {name}"
    return found
