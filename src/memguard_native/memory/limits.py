"""Which limit this process meets first, and how much room is left before it.

Pure: figures in, figures out; `memory.surroundings` reads what does not come with a sample. Limits
of four sources are compared: the control group's (`cgroup`), RLIMIT_AS (`rlimit`), what the user
said by `limit_bytes` or MEMGUARD_LIMIT (`config`), and the memory of the host (`host`).

The one with the least room counts, not the smallest number: a group of 2 GiB that other workers
have filled is nearer than a limit of 1 GiB for this process alone. RLIMIT_AS limits addresses, not
memory: libraries, thread stacks and reserved heaps take gigabytes of it that were never touched. So
what the address space exceeds private memory by is taken off that limit first; the result says how
large private memory can grow, and shrinks when a library reserves more.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from memguard_native.errors import ConfigError
from memguard_native.memory.sample import MemorySample

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_LARGEST = 2**63 - 1
_ALLOWED = "must be a size > 0 such as 2GiB, 512M or 1073741824 (units are powers of 1024)"


class Surroundings(NamedTuple):
    """What limits this process besides its control group; None: not limited, or not known."""

    address_space_limit_bytes: int | None = None
    """RLIMIT_AS."""
    address_space_bytes: int | None = None
    """What of it is taken, touched or not."""
    variable_bytes: int | None = None
    """MEMGUARD_LIMIT."""
    host_bytes: int | None = None
    """The memory of the host."""


class MemoryLimit(NamedTuple):
    """An amount of memory and who limits it: cgroup, rlimit, config or host."""

    bytes: int
    source: str


def parse_size(text: str, *, field: str = "size") -> int:
    """The bytes that a text such as "2GiB", "512M", "1.5 gb" or "1073741824" means.

    K, M, G and T are powers of 1024, with or without "B" or "iB", in either case.

    Raises ConfigError, of `field`: anything else, 0, or more than 63 bits.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(field, text, _ALLOWED)
    size = float(found[1]) * _UNITS[(found[2] or "").lower()]
    if not 1 <= size <= _LARGEST:
        raise ConfigError(field, text, _ALLOWED)
    return min(math.floor(size), _LARGEST)


def effective_limit(
    sample: MemorySample, surroundings: Surroundings, *, limit_bytes: int | None = None
) -> MemoryLimit | None:
    """The limit with the least room; `limit_bytes` is the configured one.

    None if no limit is known. Where no room is known either, the smallest limit.
    """
    limits = [
        MemoryLimit(amount, source)
        for amount, source in (
            (sample.cgroup_limit_bytes, "cgroup"),
            (_private_limit(sample, surroundings), "rlimit"),
            (surroundings.variable_bytes, "config"),
            (limit_bytes, "config"),
            (surroundings.host_bytes, "host"),
        )
        if amount is not None
    ]

    def nearness(limit: MemoryLimit) -> tuple[float, int]:
        room = room_bytes(sample, limit)
        return (math.inf if room is None else room), limit.bytes

    return min(limits, key=nearness, default=None)


def room_bytes(sample: MemorySample, limit: MemoryLimit) -> int | None:
    """What may still be taken before `limit`; negative beyond it, None where it is not known.

    Of a control group's limit, what the whole group has is taken off: its private memory, because
    the page cache gives way. Of any other, what this process has: private memory, else the resident
    set.
    """
    if limit.source == "cgroup":
        taken = sample.cgroup_private_bytes
    else:
        taken = sample.rss_bytes if sample.private_bytes is None else sample.private_bytes
    return None if taken is None else limit.bytes - taken


def _private_limit(sample: MemorySample, surroundings: Surroundings) -> int | None:
    """How large private memory can grow under RLIMIT_AS."""
    limit = surroundings.address_space_limit_bytes
    taken, private = surroundings.address_space_bytes, sample.private_bytes
    if limit is None or taken is None or private is None:
        return limit
    return max(0, limit - max(0, taken - private))
