"""What a monitor explains, as a page and as JSON."""

from __future__ import annotations

import json

import pytest

from memguard_native.memory.monitor import MemoryMonitor

LIMIT = 2**30


@pytest.fixture
def monitor(probe, clock) -> MemoryMonitor:
    return MemoryMonitor(probe=probe, clock=clock, evidence=False, limit_bytes=LIMIT)


def test_before_the_first_sample_it_is_too_early(monitor):
    assert str(monitor.explain()) == "TOO EARLY: not watched for long enough to tell"


def test_a_leak_is_told_with_its_forecast_and_by_window(monitor, grow):
    grow(monitor, 60, 200)
    page = str(monitor.explain()).splitlines()
    assert page[0].startswith("LEAK: memory grows by 60")
    assert any(line.startswith("If it goes on like this, the limit of 1.00 GB") for line in page)
    windows = [line for line in page if " min, from " in line]
    assert windows[0].split() == (
        ["42", "min,", "from", "550", "MB/h", "live", "no", "leak:", "rate", "60,", "limit", "550"]
    )
    assert "130 min, from 36 MB/h   live    a leak of 60.0 MB/h" in windows[2]
    assert len({line[:34] for line in windows}) == len(windows)


def test_what_was_only_told_is_no_action(monitor, grow):
    grow(monitor, 60, 200)
    assert "Action:" not in str(monitor.explain())


def test_the_same_is_ready_for_json(monitor, grow):
    grow(monitor, 60, 200)
    found = monitor.explain().to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["schema"], found["state"]) == (1, "alert")
    assert found["scales"][0]["rule"] == "rate"
