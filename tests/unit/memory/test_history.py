"""Samples of scope "host" outlive the process that took them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from memguard_native import ConfigError, MemoryMonitor, SegmentError
from memguard_native.memory.history import read_history
from memguard_native.segment import attach
from memguard_native.testing import FakeProbe, ManualClock

WORKER = """
from memguard_native import MemoryMonitor
from memguard_native.testing import FakeProbe, ManualClock
clock = ManualClock()
probe = FakeProbe(clock)
monitor = MemoryMonitor(probe=probe, clock=clock, scope="host")
for _ in range(3):
    monitor.tick()
    probe.private_bytes += 5
    clock.advance(60)
"""


@pytest.fixture
def monitor():
    clock = ManualClock(start=1.0)
    return MemoryMonitor(probe=FakeProbe(clock, private_bytes=7), clock=clock, scope="host")


def test_samples_are_kept_in_the_slot_of_this_process(monitor):
    monitor.tick()
    monitor.tick()
    entries = read_history(attach().core.slot)
    assert [entry.sample.private_bytes for entry in entries] == [7, 7]
    assert {(entry.pid, entry.generation) for entry in entries} == {(os.getpid(), 1)}
    assert entries[-1].sample == monitor.snapshot().samples[-1]


def test_a_successor_reads_what_its_predecessor_has_left():
    subprocess.run([sys.executable, "-c", WORKER], check=True, timeout=60)
    entries = read_history(0)
    start = entries[0].sample.private_bytes
    assert [entry.sample.private_bytes - start for entry in entries] == [0, 5, 10]
    attach()
    assert attach().core.slot == 0
    assert len(read_history(0)) == 3


def test_what_could_not_be_read_is_none_afterwards_too(monitor):
    monitor._by_hand._probe.private_bytes = None
    monitor.tick()
    assert read_history(0)[0].sample.private_bytes is None


def test_a_local_monitor_keeps_nothing_in_shared_memory(segment_directory):
    MemoryMonitor(probe=FakeProbe(ManualClock())).tick()
    assert not segment_directory.exists()


def test_without_a_segment_it_monitors_all_the_same(monkeypatch, caplog):
    monkeypatch.setenv("MEMGUARD_DIR", "/proc/no/such")
    monitor = MemoryMonitor(probe=FakeProbe(ManualClock()), scope="host")
    monitor.tick()
    assert monitor.snapshot().samples
    assert "memory history is not shared" in caplog.text


@pytest.mark.parametrize("arguments", [{"scope": "fleet"}, {"scope": "host", "namespace": 3}])
def test_a_bad_scope_or_namespace_is_refused(arguments):
    with pytest.raises(ConfigError):
        MemoryMonitor(**arguments)


def test_there_is_no_history_without_a_segment():
    with pytest.raises(SegmentError, match="there is no such segment"):
        read_history(0)
