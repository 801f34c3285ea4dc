"""`MemorySample`: what one look at the memory of this process found. Immutable, picklable."""

from __future__ import annotations

from typing import NamedTuple

BYTES_PER_MB = 2**20

OLDEST_NS = 600 * 10**9
"""How old a carried figure may be to be used: 10 minutes.

Those of malloc and of CPython's blocks are read every 60th sample, or never again, once that is
dear; older than this they tell of another time than the rest of the sample.
"""


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
    python_arena_bytes: int | None = None
    """What CPython's allocator of small objects holds, used or not."""
    malloc_in_use_bytes: int | None = None
    """What the program got from malloc and has not freed. Python's small objects are not in it."""
    malloc_free_bytes: int | None = None
    """What was freed, and what malloc keeps to give out again."""
    malloc_mmap_bytes: int | None = None
    """The part of `malloc_in_use_bytes` in large blocks with mappings of their own."""
    malloc_age_ns: int | None = None
    """How old the three are: reading them gets dear with many free blocks, and then is rarer."""
    python_blocks: int | None = None
    """What CPython's allocators have given out, as `sys.getallocatedblocks()` counts."""
    gpu_bytes: int | None = None
    """Memory of the GPU that this process uses."""
    cgroup_usage_bytes: int | None = None
    """What the control group of this process is charged for, the page cache included."""
    cgroup_private_bytes: int | None = None
    """The part of it that cannot be dropped: anonymous, shared memory and swapped out."""
    cgroup_limit_bytes: int | None = None
    """The smallest limit from that group up the tree; None: none below the memory of the host."""
    cgroup_high_bytes: int | None = None
    """The smallest amount up the tree above which the kernel slows its processes down."""
    cgroup_limit_hits: int | None = None
    """How often the group has run into its limit."""
    cgroup_oom_kills: int | None = None
    """How many of its processes the kernel has killed for want of memory."""
    memory_pressure_us: int | None = None
    """Microseconds so far in which a task of the group (else of the host) waited for memory."""
    load: float | None = None
    """What was in flight at this instant, in a unit of the user's: requests, bytes, tokens."""
    sample_cost_ns: int = 0
    """How long it took to take this sample, without the figures of its control group."""
    cgroup_cost_ns: int = 0
    """How long those took."""

    @property
    def private_bytes(self) -> int | None:
        """What this process alone is charged for: anonymous, shared memory and swapped out.

        Unlike the resident set it knows nothing of mapped files, which the system can drop at any
        time, and does not shrink when memory is swapped out. None where it is not known.
        """
        if self.anon_bytes is None:
            return None
        return self.anon_bytes + (self.shmem_bytes or 0) + (self.swap_bytes or 0)

    @property
    def live_bytes(self) -> int | None:
        """Private memory without what malloc keeps for later: a leak shows here first.

        None where private memory is not known. All of it counts where malloc's figures are not
        known or are older than 10 minutes (`malloc_is_fresh`).
        """
        private = self.private_bytes
        if private is None or self.malloc_free_bytes is None or not self.malloc_is_fresh:
            return private
        return private - self.malloc_free_bytes

    @property
    def malloc_is_fresh(self) -> bool:
        """Whether malloc's figures are known and at most 10 minutes old.

        None as the age, as in a trace of another program's, is none at all.
        """
        return self.malloc_in_use_bytes is not None and (self.malloc_age_ns or 0) <= OLDEST_NS
