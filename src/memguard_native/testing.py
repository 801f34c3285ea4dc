"""What tests of code that uses this package need: time that stands still, memory that obeys.

clock = ManualClock()
probe = FakeProbe(clock)
monitor = MemoryMonitor(probe=probe, clock=clock, rule="window", on_alert=alerts.append)
for _ in range(12):
    monitor.tick()
    probe.private_bytes += 1_000_000
    clock.advance(60)
"""

from __future__ import annotations

from memguard_native._core import ManualClock
from memguard_native.memory.sample import BYTES_PER_MB, MemorySample

__all__ = ["FakeProbe", "ManualClock"]


class FakeProbe:
    """A probe that finds what its attributes say. None: that cannot be read."""

    def __init__(self, clock: ManualClock, *, private_bytes: int | None = 100 * BYTES_PER_MB):
        self.clock = clock
        self.private_bytes = private_bytes
        """Anonymous memory; nothing is shared or swapped out."""
        self.rss_bytes: int | None = 150 * BYTES_PER_MB
        """The resident set."""
        self.error: Exception | None = None
        """What `sample()` raises, if anything."""

    def sample(self) -> MemorySample:
        """The memory that the attributes describe, at the time of the clock."""
        if self.error is not None:
            raise self.error
        now_ns = round(self.clock.now() * 1e9)
        return MemorySample(
            now_ns, now_ns, rss_bytes=self.rss_bytes, anon_bytes=self.private_bytes, threads=1
        )
