"""Memory samples that outlive the process: kept in its slot of the segment, for a successor.

A slot keeps the newest 512 samples of all its owners, so a worker that takes over finds how its
predecessor grew, and how it ended.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from memguard_native import _core
from memguard_native.errors import SegmentUnavailableError
from memguard_native.memory.sample import MemorySample

logger = logging.getLogger("memguard_native.memory")


class HistoryEntry(NamedTuple):
    """A sample and whose it is."""

    sample: MemorySample
    pid: int
    generation: int
    """Counts the owners of the slot, from 1."""


def keeper(namespace: str | None) -> Callable[[MemorySample], object] | None:
    """What keeps a sample in this process's slot; None, with a warning, if there is no segment.

    Raises SegmentError: the shared file is somebody else's, or open to others.
    """
    try:
        if not sys.platform.startswith("linux"):
            problem, cure = "shared memory is for Linux so far", "keep scope='local' on this system"
            raise SegmentUnavailableError("scope='host'", problem, cure)
        from memguard_native.segment import attach, successor_of

        segment = attach(namespace)
    except SegmentUnavailableError as error:
        logger.warning("memory history is not shared: %s", error)
        return None

    def keep(sample: MemorySample) -> None:
        successor_of(segment).core.push_sample(sample)

    return keep


def read_history(slot: int, namespace: str | None = None) -> list[HistoryEntry]:
    """The samples of a slot's owners, oldest first; the file is only read.

    Raises:
        IndexError: there is no such slot.
        SegmentError: there is no such segment, or it cannot be used.
    """
    from memguard_native.segment import checked_namespace, look_at, path_of

    return entries_of(look_at(path_of(checked_namespace(namespace))).core, slot)


def entries_of(core: _core.Segment, slot: int) -> list[HistoryEntry]:
    """The same of a segment that is mapped already."""
    return [
        HistoryEntry(MemorySample._make(sample), pid, generation)
        for sample, pid, generation in core.history(slot)
    ]
