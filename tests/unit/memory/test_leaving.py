"""A monitor of scope "host" leaves what it has learnt, and begins with what was left to it."""

from __future__ import annotations

import logging

import pytest

from memguard_native.memory.history import keeper
from memguard_native.memory.inheritance import InheritanceState
from memguard_native.memory.learnt import Learnt, learnt_of
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.segment import attach

MB = 2**20
LIMIT = 2**30
LEFT = Learnt(
    state="alert",
    cause="native-heap",
    rate_mb_per_hour=60.0,
    baseline_mb=100.0,
    retained_mb=500.0,
    warm_up_minutes=0,
)


@pytest.fixture
def leave(monkeypatch):
    """leave(learnt): a process before this one has left it."""

    def run(learnt: Learnt | None) -> None:
        monkeypatch.setattr("memguard_native.memory.history.find_learnt", lambda _core: learnt)

    return run


def new(probe, clock, **settings) -> MemoryMonitor:
    return MemoryMonitor(
        probe=probe, clock=clock, scope="host", evidence=False, limit_bytes=LIMIT, **settings
    )


def test_what_a_process_has_learnt_is_in_its_slot(probe, clock, grow):
    monitor = new(probe, clock)
    monitor.load.requests.add(500)
    grow(monitor, 60, 200)
    monitor.load.requests.add(1000)
    grow(monitor, 60, 1)
    core = attach(None).core
    learnt = learnt_of(core, core.slot)
    assert (learnt.state, learnt.requests) == ("alert", 1500)
    assert learnt.rate_mb_per_hour == pytest.approx(60, rel=0.05)
    assert learnt.mb_per_1000_requests == pytest.approx(130, rel=0.2)


def test_nothing_is_left_before_there_is_a_verdict(probe, clock, grow):
    monitor = new(probe, clock)
    grow(monitor, 60, 20)
    core = attach(None).core
    assert learnt_of(core, core.slot) is None


def test_a_successor_forecasts_from_its_first_minute(probe, clock, grow, leave):
    leave(LEFT)
    monitor = new(probe, clock)
    grow(monitor, 60, 1)
    forecast = monitor.snapshot().forecast
    assert forecast.inherited
    # 924 MB of room at 60 MB/hour.
    assert forecast.seconds == pytest.approx(924 / 60 * 3600)


def test_a_leak_that_goes_on_in_the_successor_is_told_after_half_an_hour(probe, clock, grow, leave):
    leave(LEFT)
    alerts = []
    monitor = new(probe, clock, on_alert=alerts.append)
    grow(monitor, 60, 31)
    (alert,) = alerts
    assert (alert.rule, alert.window_minutes) == ("floor", 30)
    assert alert.rate_mb_per_hour == pytest.approx(60, rel=0.05)
    assert monitor.snapshot().inherited.state is InheritanceState.confirmed
    assert not monitor.snapshot().forecast.inherited


def test_a_leak_that_does_not_go_on_is_dropped(probe, clock, grow, leave):
    leave(LEFT)
    monitor = new(probe, clock)
    grow(monitor, 0, 31)
    snapshot = monitor.snapshot()
    assert snapshot.inherited.state is InheritanceState.dropped
    assert (snapshot.alert, snapshot.forecast) == (None, None)


def test_recycling_that_does_not_cure_is_a_warning(probe, clock, grow, leave, caplog):
    leave(LEFT)
    probe.private_bytes = 490 * MB
    caplog.set_level(logging.INFO, "memguard_native.memory")
    grow(new(probe, clock), 60, 31)
    (record,) = [one for one in caplog.records if hasattr(one, "recycling_cures")]
    assert record.levelname == "WARNING"
    assert "recycling does not cure it" in record.message


def test_the_limit_is_in_the_slot(probe, clock, grow):
    grow(new(probe, clock), 0, 1)
    core = attach(None).core
    (worker,) = [one for one in core.workers() if one["slot"] == core.slot]
    assert worker["memory_limit_bytes"] == LIMIT


def test_a_monitor_of_scope_local_leaves_nothing(probe, clock, grow):
    monitor = MemoryMonitor(probe=probe, clock=clock, evidence=False)
    grow(monitor, 60, 200)
    assert keeper(None).find_learnt() is None
