"""Carries connections from workers that drain to workers that serve, and loses none.

The supervisor keeps its own copy of a descriptor until the adopter has said that the connection is
its own. If it dies before, the next one gets it; afterwards it is never sent again: nobody may read
a stream whose position is not known.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from memguard_native.recycling.messages import Channel, ChannelClosedError, Kind

_SEQUENCE = 2**32  # what the header of a frame has room for


class Adopter(Protocol):
    """A worker that serves."""

    generation: int
    channel: Channel
    connections: int
    """What it has, as far as is known."""


class Relay:
    """`capacity`: how many descriptors it may hold before workers have to wait with theirs."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[int] = deque()
        self._sent: dict[int, tuple[int, int]] = {}  # seq: (descriptor, generation)
        self._seq = 0
        self._without_room: set[int] = set()  # generations

    @property
    def is_full(self) -> bool:
        """Whether no more is to be taken for now."""
        return len(self._waiting) + len(self._sent) >= self._capacity

    def may_send_to(self, adopters: Sequence[Adopter]) -> bool:
        """Whether `pump()` may succeed soon where it has not."""
        return bool(self._waiting) and bool(self._with_room(adopters))

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing at all."""
        return not self._waiting and not self._sent

    def take(self, descriptor: int) -> None:
        """A connection of a worker that drains: the relay's from now on."""
        self._waiting.append(descriptor)

    def pump(self, adopters: Sequence[Adopter]) -> None:
        """Send what waits, each to the one with the fewest connections that has room."""
        ready = self._with_room(adopters)
        while self._waiting and ready:
            adopter = min(ready, key=lambda one: one.connections)
            try:
                was_sent = adopter.channel.send_descriptor(
                    Kind.connection, self._waiting[0], seq=(self._seq + 1) % _SEQUENCE
                )
            except ChannelClosedError:
                was_sent = False
            if not was_sent:
                ready.remove(adopter)
                continue
            self._seq = (self._seq + 1) % _SEQUENCE
            adopter.connections += 1
            self._sent[self._seq] = (self._waiting.popleft(), adopter.generation)

    def adopted(self, seq: int) -> None:
        """Somebody has it: our copy is of no use."""
        if (sent := self._sent.pop(seq, None)) is not None:
            os.close(sent[0])

    def refused(self, seq: int) -> None:
        """It did not arrive, because the adopter has no descriptor left: another one gets it."""
        if (sent := self._sent.pop(seq, None)) is not None:
            self._waiting.append(sent[0])
            self._without_room.add(sent[1])

    def try_all_again(self) -> None:
        """Those that had no descriptor left may have one now."""
        self._without_room.clear()

    def lost(self, generation: int) -> None:
        """A worker is gone: what it had not adopted goes to another."""
        for seq, (descriptor, adopter) in list(self._sent.items()):
            if adopter == generation:
                del self._sent[seq]
                self._waiting.append(descriptor)

    def _with_room(self, adopters: Sequence[Adopter]) -> list[Adopter]:
        return [one for one in adopters if one.generation not in self._without_room]

    def abandon(self) -> int:
        """Close everything: nobody is left to serve it. How many connections that were."""
        descriptors = [*self._waiting, *(descriptor for descriptor, _ in self._sent.values())]
        self._waiting.clear()
        self._sent.clear()
        for descriptor in descriptors:
            os.close(descriptor)
        return len(descriptors)


def descriptor_capacity() -> int:
    """What this process may hold for others, with its limit of descriptors raised to the hard one:
    at most 4096, and a fifth is left for all else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(16, min(4096, hard * 8 // 10 - 128))
