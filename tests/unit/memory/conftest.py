from __future__ import annotations

import pytest

from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.sample import BYTES_PER_MB
from memguard_native.testing import FakeProbe, ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=1000.0)


@pytest.fixture
def probe(clock: ManualClock) -> FakeProbe:
    return FakeProbe(clock)


@pytest.fixture
def grow(clock, probe):
    """grow(monitor, mb_per_hour, minutes) feeds a monitor with growth, a sample a minute."""

    def run(monitor: MemoryMonitor, mb_per_hour: float, minutes: int) -> None:
        for _ in range(minutes):
            monitor.tick()
            probe.private_bytes += round(mb_per_hour / 60 * BYTES_PER_MB)
            clock.advance(60)

    return run
