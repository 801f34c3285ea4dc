"""`MemorySample`: what one look at the memory of this process found. Immutable, picklable."""

from __future__ import annotations

from typing import NamedTuple

BYTES_PER_MB = 2**20


class MemorySample(NamedTuple):
    """Memory of this process at one instant; None where it could not be read.

    The order of the fields is that of the native core.
    """

    monotonic_ns: int
    """When: the monotonic clock, to measure with."""
    wall_ns: int
    """When: nanoseconds since 1970-01-01 UTC, to show."""
    rss_bytes: int | None = None
    """The resident set: everything in physical memory, files that are mapped included."""
    anon_bytes: int | None = None
    """The anonymous part of it: heap, stacks."""
    file_bytes: int | None = None
    """The part of it that is mapped from files."""
    shmem_bytes: int | None = None
    """The part of it that is shared memory."""
    swap_bytes: int | None = None
    """What is swapped out, and so no longer in the resident set."""
    threads: int | None = None
    """Threads, native ones included."""
    malloc_in_use_bytes: int | None = None
    """What the program got from malloc and has not freed. Python's small objects are not in it."""
    malloc_free_bytes: int | None = None
    """What was freed, and what malloc keeps to give out again."""
    malloc_mmap_bytes: int | None = None
    """The part of `malloc_in_use_bytes` in large blocks with mappings of their own."""
    malloc_age_ns: int | None = None
    """How old the three are: reading them gets dear with many free blocks, and then is rarer."""
    sample_cost_ns: int = 0
    """How long it took to take this sample."""

    @property
    def private_bytes(self) -> int | None:
        """What this process alone is charged for: anonymous, shared memory and swapped out.

        Unlike the resident set it knows nothing of mapped files, which the system can drop at any
        time, and does not shrink when memory is swapped out. None where it is not known.
        """
        if self.anon_bytes is None:
            return None
        return self.anon_bytes + (self.shmem_bytes or 0) + (self.swap_bytes or 0)
