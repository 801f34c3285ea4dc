"""What outlives the process: its samples and what it has learnt, kept in its slot of the segment.

A slot keeps the newest 512 samples of all its owners, so a worker that takes over finds how its
predecessor grew, and how it ended; `learnt` has what that one made of it.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

from memguard_native import _core
from memguard_native.errors import SegmentUnavailableError
from memguard_native.memory.learnt import Learnt, find_learnt, keep_learnt
from memguard_native.memory.sample import MemorySample

if TYPE_CHECKING:
    from memguard_native.segment import Segment

logger = logging.getLogger("memguard_native.memory")


class HistoryEntry(NamedTuple):
    """A sample and whose it is."""

    sample: MemorySample
    pid: int
    generation: int
    """Counts the owners of the slot, from 1."""


class Keeper:
    """Writes into the slot of this process, and reads what others have left. One thread at a time.

    A process without a slot keeps nothing.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __call__(self, sample: MemorySample) -> None:
        """Keep a sample."""
        self._mapped.push_sample(sample)

    def keep_learnt(self, learnt: Learnt) -> None:
        """Keep what this process has learnt, for a successor. Raises ValueError."""
        keep_learnt(self._mapped, learnt)

    def find_learnt(self) -> Learnt | None:
        """What a predecessor has learnt, if there was one; ask before anything is kept."""
        return find_learnt(self._mapped)

    def tell_requests(self, total: int) -> None:
        """So many requests were served by this process so far."""
        self._mapped.set_requests(total)

    def tell_limit(self, limit_bytes: int | None) -> None:
        """This is what memory of this process will run into; None: not known."""
        self._mapped.set_memory_limit(limit_bytes)

    @property
    def _mapped(self) -> _core.Segment:
        from memguard_native.segment import successor_of

        return successor_of(self._segment).core


def keeper(namespace: str | None) -> Keeper | None:
    """What writes into this process's slot; None, with a warning, if there is no segment.

    Raises SegmentError: the shared file is somebody else's, or open to others.
    """
    try:
        if not sys.platform.startswith("linux"):
            problem, cure = "shared memory is for Linux so far", "keep scope='local' on this system"
            raise SegmentUnavailableError("scope='host'", problem, cure)
        from memguard_native.segment import attach

        return Keeper(attach(namespace))
    except SegmentUnavailableError as error:
        logger.warning("memory history is not shared: %s", error)
        return None


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
