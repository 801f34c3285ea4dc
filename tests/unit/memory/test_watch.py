"""What a run logs, whom it calls, and what its snapshot tells."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from memguard_native.memory.alert import MemoryState
from memguard_native.memory.monitor import MemoryMonitor

MB = 2**20
LOGGER = "memguard_native.memory"


@pytest.fixture
def watch(clock, probe):
    """watch(monitor, mb_per_hour, samples) feeds a monitor with growth."""

    def run(monitor: MemoryMonitor, mb_per_hour: float, samples: int = 12) -> None:
        for _ in range(samples):
            monitor.tick()
            probe.private_bytes += round(mb_per_hour / 60 * MB)
            clock.advance(60)

    return run


def new(probe, clock, **settings) -> MemoryMonitor:
    return MemoryMonitor(probe=probe, clock=clock, rule="window", **settings)


# --- callbacks -----------------------------------------------------------------------------------


def test_on_sample_gets_every_sample(probe, clock, watch):
    seen = []
    monitor = new(probe, clock, on_sample=seen.append)
    watch(monitor, 0, samples=3)
    assert tuple(seen) == monitor.snapshot().samples
    assert len(seen) == 3


def test_on_alert_is_called_on_the_rising_edge_only(probe, clock, watch):
    alerts = []
    monitor = new(probe, clock, on_alert=alerts.append)
    watch(monitor, 60, samples=30)
    assert len(alerts) == 1
    watch(monitor, 0, samples=12)
    assert monitor.state is MemoryState.steady
    watch(monitor, 60, samples=12)
    assert len(alerts) == 2


def test_alert_tells_rate_span_and_limit(probe, clock, watch):
    alerts = []
    monitor = new(probe, clock, on_alert=alerts.append)
    watch(monitor, 60)
    (alert,) = alerts
    assert alert == monitor.snapshot().alert
    assert (alert.rule, alert.severity, alert.signal) == ("window", "notice", "private")
    assert alert.sample == 11
    assert alert.at == 1000 + 11 * 60
    assert alert.window_minutes == 11
    assert alert.rate_mb_per_hour == pytest.approx(60)
    assert alert.threshold_mb_per_hour == 10


def test_alert_is_gone_from_the_snapshot_when_cleared(probe, clock, watch):
    monitor = new(probe, clock)
    watch(monitor, 60)
    assert monitor.snapshot().alert is not None
    watch(monitor, 0)
    assert monitor.snapshot().alert is None


def test_callbacks_see_the_state_that_their_sample_made(probe, clock, watch):
    states = []
    monitor = new(
        probe,
        clock,
        on_sample=lambda _: states.append(monitor.state),
        on_alert=lambda alert: states.append(monitor.snapshot().alert is alert),
    )
    watch(monitor, 60)
    assert states == ["learning"] * 11 + ["alert", True]


def test_callbacks_run_without_a_lock_held(probe, clock):
    # A callback that hands work to another thread and waits for it must not deadlock.
    def use_from_another_thread(_: object) -> None:
        thread = threading.Thread(target=lambda: (monitor.snapshot(), monitor.stop()))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    monitor = new(probe, clock, on_sample=use_from_another_thread)
    monitor.tick()
    assert monitor.snapshot().callback_errors == 0


def test_error_of_a_callback_is_counted_and_logged_once(probe, clock, watch, caplog):
    monitor = new(probe, clock, on_sample=lambda _: 1 / 0)
    watch(monitor, 0, samples=5)
    assert monitor.snapshot().callback_errors == 5
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "on_sample raised" in errors[0].message
    assert errors[0].exc_info[0] is ZeroDivisionError


def test_exit_in_a_callback_does_not_end_the_monitoring(probe, clock, watch):
    monitor = new(probe, clock, on_sample=lambda _: sys.exit(3))
    watch(monitor, 0, samples=5)
    assert monitor.snapshot().callback_errors == 5


def test_each_callback_has_its_own_first_error(probe, clock, watch, caplog):
    monitor = new(probe, clock, on_sample=lambda _: 1 / 0, on_alert=lambda _: {}["x"])
    watch(monitor, 60)
    assert monitor.snapshot().callback_errors == 13
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info[0] for record in errors] == [ZeroDivisionError, KeyError]


# --- snapshot ------------------------------------------------------------------------------------


def test_fresh_snapshot_is_empty(probe, clock):
    snapshot = new(probe, clock).snapshot()
    assert (snapshot.state, snapshot.samples, snapshot.sample_count) == ("learning", (), 0)
    assert snapshot.growth is snapshot.alert is snapshot.rate_mb_per_hour is None


def test_snapshot_keeps_the_newest_window_and_counts_all(probe, clock, watch):
    monitor = new(probe, clock)
    watch(monitor, 6, samples=20)
    snapshot = monitor.snapshot()
    assert snapshot.sample_count == 20
    assert len(snapshot.samples) == 12
    assert snapshot.samples[-1].monotonic_ns == (1000 + 19 * 60) * 10**9
    assert snapshot.rate_mb_per_hour == snapshot.growth.rate_mb_per_hour
    assert snapshot.rate_mb_per_hour == pytest.approx(6, rel=1e-4)


def test_earlier_snapshot_does_not_change(probe, clock, watch):
    monitor = new(probe, clock)
    before = monitor.snapshot()
    watch(monitor, 60)
    assert before.sample_count == 0
    assert before.samples == ()


def test_probe_that_fails_is_counted_and_logged_once(probe, clock, watch, caplog):
    monitor = new(probe, clock)
    probe.error = OSError("no /proc")
    watch(monitor, 0, samples=4)
    snapshot = monitor.snapshot()
    assert snapshot.probe_failures == 4
    assert snapshot.sample_count == 0
    assert [record.message for record in caplog.records] == [
        "memory probe failed; further failures are only counted"
    ]


def test_probe_that_recovers_is_used_again(probe, clock, watch):
    monitor = new(probe, clock)
    probe.error = OSError("no /proc")
    watch(monitor, 0, samples=4)
    probe.error = None
    watch(monitor, 60)
    assert monitor.state is MemoryState.alert


def test_probe_that_returns_no_sample_has_failed(probe, clock, monkeypatch):
    monkeypatch.setattr(probe, "sample", lambda: {"rss_bytes": 1})
    monitor = new(probe, clock)
    monitor.tick()
    assert monitor.snapshot().probe_failures == 1


# --- log -----------------------------------------------------------------------------------------


def levels(caplog) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records]


def test_state_changes_are_logged_and_samples_are_not(probe, clock, watch, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    monitor = new(probe, clock)
    watch(monitor, 6)
    watch(monitor, 60)
    watch(monitor, 0)
    assert levels(caplog) == [
        ("INFO", "memory steady: +6.0 MB/h"),
        (
            "WARNING",
            "memory alert: memory grows by 10.9 MB/h over 11 min (private, limit 10.0 MB/h)",
        ),
        ("INFO", "memory steady: +5.5 MB/h"),
    ]


def test_log_samples_adds_a_line_for_each(probe, clock, watch, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    watch(new(probe, clock, log_samples=True), 60)
    lines = levels(caplog)
    assert lines[0] == ("INFO", "memory: private 100.0 MB, rss 150.0 MB, malloc unknown, learning")
    assert lines[-2] == (
        "INFO",
        "memory: private 111.0 MB, rss 150.0 MB, malloc unknown, +60.0 MB/h over 11.0 min",
    )
    assert len(lines) == 13


def test_log_records_carry_their_numbers(probe, clock, watch, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    watch(new(probe, clock, log_samples=True), 60)
    of_sample, of_alert = caplog.records[-2:]
    assert of_sample.private_bytes == 111 * MB
    assert of_sample.rss_bytes == 150 * MB
    assert of_sample.malloc_in_use_bytes is None
    assert of_sample.memory_state == of_alert.memory_state == "alert"
    assert of_alert.rate_mb_per_hour == of_sample.rate_mb_per_hour == pytest.approx(60)
    assert of_alert.memory_alert["window_minutes"] == 11
    assert of_alert.memory_alert["signal"] == "private"


# --- for months ----------------------------------------------------------------------------------


def test_a_monitor_keeps_the_newest_hundred_alerts_and_suspicions(probe, clock, watch):
    alerts = []
    monitor = MemoryMonitor(probe=probe, clock=clock, rule="both", window=3, on_alert=alerts.append)
    for _ in range(150):
        watch(monitor, 60, samples=3)
        watch(monitor, -60, samples=3)
    kept = monitor._run.watch.alerts
    assert len(alerts) > 100
    assert len(kept) == 100
    assert kept[-1].sample == alerts[-1].sample


def test_growth_by_part_is_measured_once_a_minute(probe, clock, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "memguard_native.memory.watch.parts_of_growth", lambda _: measured.append(1) or {}
    )
    monitor = MemoryMonitor(5.0, probe=probe, clock=clock, rule="both", window=3)
    for _ in range(120):
        monitor.tick()
        probe.private_bytes += MB
        clock.advance(5)
    assert monitor.state is MemoryState.suspect
    assert 9 <= len(measured) <= 12
