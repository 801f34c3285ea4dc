from __future__ import annotations

import pytest

from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.testing import FakeProbe, ManualClock


def test_fake_probe_finds_what_it_is_told():
    clock = ManualClock(5)
    probe = FakeProbe(clock, private_bytes=123)
    assert probe.sample().private_bytes == 123
    probe.private_bytes, probe.rss_bytes = None, 456
    assert probe.sample().private_bytes is None
    assert probe.sample().rss_bytes == 456


def test_fake_probe_takes_its_time_from_the_clock():
    clock = ManualClock(5)
    probe = FakeProbe(clock)
    clock.advance(1.5)
    assert probe.sample().monotonic_ns == 6_500_000_000


def test_fake_probe_can_fail():
    probe = FakeProbe(ManualClock())
    probe.error = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        probe.sample()


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1e10, 1e300])
def test_a_clock_refuses_what_is_no_time(seconds):
    with pytest.raises(ValueError, match=r"seconds must be a number from -1e9 to 1e9"):
        ManualClock(seconds)
    clock = ManualClock()
    with pytest.raises(ValueError, match="seconds must be a number"):
        clock.advance(seconds)
    assert clock.now() == 0.0


def test_the_example_of_the_module_raises_one_alert():
    alerts = []
    clock = ManualClock()
    probe = FakeProbe(clock)
    monitor = MemoryMonitor(probe=probe, clock=clock, rule="window", on_alert=alerts.append)
    for _ in range(12):
        monitor.tick()
        probe.private_bytes += 1_000_000
        clock.advance(60)
    assert len(alerts) == 1
