"""Carries connections from workers that drain to workers that serve, and loses none.

The supervisor keeps its own copy of a descriptor until the adopter has said that the connection is
its own. If it dies before, the next one gets it; afterwards it is never sent again: nobody may read
a stream whose position is not known.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from memguard_native.recycling.messages import Channel, ChannelClosedError, Kind


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

    @property
    def is_full(self) -> bool:
        """Whether no more is to be taken for now."""
        return len(self._waiting) + len(self._sent) >= self._capacity

    @property
    def has_waiting(self) -> bool:
        """Whether `pump()` has something to send."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing at all."""
        return not self._waiting and not self._sent

    def take(self, descriptor: int) -> None:
        """A connection of a worker that drains: the relay's from now on."""
        self._waiting.append(descriptor)

    def pump(self, adopters: Sequence[Adopter]) -> None:
        """Send what waits, each to the one with the fewest connections that has room."""
        ready = list(adopters)
        while self._waiting and ready:
            adopter = min(ready, key=lambda one: one.connections)
            try:
                was_sent = adopter.channel.send_descriptor(
                    Kind.connection, self._waiting[0], seq=self._seq + 1
                )
            except ChannelClosedError:
                was_sent = False
            if not was_sent:
                ready.remove(adopter)
                continue
            self._seq += 1
            adopter.connections += 1
            self._sent[self._seq] = (self._waiting.popleft(), adopter.generation)

    def adopted(self, seq: int) -> None:
        """Somebody has it: our copy is of no use."""
        if (sent := self._sent.pop(seq, None)) is not None:
            os.close(sent[0])

    def refused(self, seq: int) -> None:
        """It did not arrive: the next one gets it."""
        if (sent := self._sent.pop(seq, None)) is not None:
            self._waiting.appendleft(sent[0])

    def lost(self, generation: int) -> None:
        """A worker is gone: what it had not adopted goes to another."""
        for seq, (_, adopter) in list(self._sent.items()):
            if adopter == generation:
                self.refused(seq)

    def abandon(self) -> int:
        """Close everything: nobody is left to serve it. How many connections that were."""
        descriptors = [*self._waiting, *(descriptor for descriptor, _ in self._sent.values())]
        self._waiting.clear()
        self._sent.clear()
        for descriptor in descriptors:
            os.close(descriptor)
        return len(descriptors)
