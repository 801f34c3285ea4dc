"""What a monitor does about what it finds, driven through its verdicts."""

from __future__ import annotations

import json
import logging

import pytest

from memguard_native import ActionPolicy
from memguard_native.memory.actions import Step
from memguard_native.memory.alert import MemoryState
from memguard_native.memory.load import Load
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.response import Response
from memguard_native.memory.run import Run
from memguard_native.memory.sample import MemorySample

MB = 2**20
LOGGER = "memguard_native.memory"


class Fragmenting:
    """A probe of a process whose free memory grows, until it is trimmed."""

    def __init__(self, clock):
        self.clock = clock
        self.free_bytes = 0

    def sample(self) -> MemorySample:
        now_ns = round(self.clock.now() * 1e9)
        return MemorySample(
            now_ns,
            now_ns,
            anon_bytes=100 * MB + self.free_bytes,
            malloc_in_use_bytes=50 * MB,
            malloc_free_bytes=self.free_bytes,
        )


def new(probe, clock, **settings) -> MemoryMonitor:
    return MemoryMonitor(probe=probe, clock=clock, **{"evidence": False, **settings})


def steps(monitor: MemoryMonitor) -> list[str]:
    return [str(record.step) for record in monitor.explain().actions]


def test_by_default_an_alert_is_logged_called_back_and_advised_on(probe, clock, grow):
    monitor = new(probe, clock)
    grow(monitor, 60, 200)
    assert steps(monitor) == ["log", "callback", "advise"]


def test_auto_asks_for_recycling_when_nothing_helps(probe, clock, grow):
    asked = []
    monitor = new(probe, clock, actions="auto", on_recycle=asked.append)
    grow(monitor, 60, 200)
    assert [alert.rule for alert in asked][:1] == ["floor"]
    assert steps(monitor)[:5] == ["log", "callback", "collect", "advise", "recycle"]


def test_dry_run_only_tells(probe, clock, grow):
    asked = []
    monitor = new(probe, clock, actions="dry-run", on_recycle=asked.append)
    grow(monitor, 60, 200)
    assert asked == []
    assert [record.step for record in monitor.explain().actions if record.dry_run][:2] == [
        Step.collect,
        Step.recycle,
    ]


def test_every_action_is_told(probe, clock, grow):
    told = []
    monitor = new(probe, clock, actions="auto", on_action=told.append)
    grow(monitor, 60, 200)
    assert tuple(told) == monitor.explain().actions


def test_a_window_alert_is_logged_and_called_back_and_nothing_more(probe, clock, grow):
    asked = []
    monitor = new(probe, clock, rule="window", actions="auto", on_recycle=asked.append)
    grow(monitor, 600, 100)
    assert steps(monitor) == ["log", "callback"]
    assert asked == []


def test_with_both_rules_each_alert_is_told_apart(probe, clock, grow):
    alerts = []
    monitor = new(probe, clock, rule="both", on_alert=alerts.append)
    grow(monitor, 60, 200)
    assert [alert.rule for alert in alerts] == ["window", "floor"]


def test_a_window_alert_beside_the_floor_rule_makes_it_suspect_and_no_more(probe, clock, grow):
    monitor = new(probe, clock, rule="both")
    grow(monitor, 60, 12)
    assert monitor.state is MemoryState.suspect
    assert monitor.snapshot().alert.rule == "window"


def test_a_trim_that_gives_the_growth_back_ends_the_alert(clock, monkeypatch):
    probe = Fragmenting(clock)

    def trim() -> bool:
        probe.free_bytes = 0
        return True

    monkeypatch.setattr("memguard_native._core.malloc_trim", trim)
    monitor = new(probe, clock, actions=ActionPolicy(trim=True))
    while probe.free_bytes == 0 or monitor.state is not MemoryState.alert:
        monitor.tick()
        probe.free_bytes += MB
        clock.advance(60)
        if "trim" in steps(monitor):
            break
    snapshot = monitor.snapshot()
    assert snapshot.alert is None
    assert snapshot.state is not MemoryState.alert
    (trimmed,) = [record for record in monitor.explain().actions if record.step is Step.trim]
    assert trimmed.gave_back_bytes > 150 * MB


def test_a_callback_that_raises_is_counted_and_logged_once(probe, clock, grow, caplog):
    def fail(_alert):
        raise ValueError("no such room")

    monitor = new(probe, clock, on_alert=fail)
    grow(monitor, 60, 200)
    assert monitor.snapshot().callback_errors == 1
    assert [record.message for record in caplog.records if record.exc_info] == [
        "on_alert raised; further errors of it are only counted"
    ]


def test_evidence_begins_with_the_suspicion_and_is_in_the_alert(probe, clock, grow):
    monitor = new(probe, clock, evidence=True)
    grow(monitor, 60, 200)
    report = monitor.snapshot().alert.evidence
    assert report["complete"]
    assert "census" in report
    assert monitor.explain().evidence == report


def test_without_suspicion_there_is_no_evidence(probe, clock, grow):
    monitor = new(probe, clock, evidence=True)
    grow(monitor, 0, 200)
    assert monitor.explain().evidence is None


def test_stop_ends_a_collection_of_evidence(probe, clock):
    ended = []
    response = Response(new(probe, clock)._config, probe, idle_seconds=lambda: None)
    response._evidence = type("Collector", (), {"disarm": lambda self: ended.append(True)})()
    response.close()
    assert ended == [True]


def test_an_alert_that_gets_urgent_is_raised_anew(probe, clock, grow):
    alerts = []
    monitor = new(probe, clock, limit_bytes=800 * MB, on_alert=alerts.append)
    grow(monitor, 120, 300)
    assert [alert.severity for alert in alerts] == ["warning", "critical"]
    assert alerts[1].forecast.limit_source == "config"


def test_the_load_that_a_function_tells_is_in_the_samples(probe, clock):
    monitor = new(probe, clock, load=lambda: 7)
    monitor.tick()
    assert monitor.snapshot().samples[-1].load == 7.0


def test_a_load_function_that_raises_leaves_the_load_unknown(probe, clock, caplog):
    def fail() -> float:
        raise ValueError("not yet")

    monitor = new(probe, clock, load=fail)
    monitor.tick()
    monitor.tick()
    assert monitor.snapshot().samples[-1].load is None
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_line_tells_each_change_of_state(probe, clock, grow, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    grow(new(probe, clock), 60, 200)
    lines = [record.message.split(":")[0] for record in caplog.records]
    assert lines[:3] == ["memory steady", "memory suspect", "memory alert"]


def test_an_exit_in_any_callback_is_counted_and_ends_nothing(probe, clock, grow, caplog):
    def leave(_told):
        raise SystemExit(3)

    monitor = new(probe, clock, actions="auto", on_action=leave, on_recycle=leave)
    grow(monitor, 60, 200)
    acted = len(monitor.explain().actions)
    asked = steps(monitor).count("recycle")
    assert asked > 1
    assert monitor.snapshot().callback_errors == acted + asked
    assert [record.message.split(" raised")[0] for record in caplog.records if record.exc_info] == [
        "on_action",
        "on_recycle",
    ]


def test_a_policy_that_does_not_tell_is_silent_about_window_alerts_too(probe, clock, grow):
    alerts = []
    policy = ActionPolicy(log=False, callback=False)
    monitor = new(probe, clock, rule="both", actions=policy, on_alert=alerts.append)
    grow(monitor, 60, 20)
    assert monitor.snapshot().alert.rule == "window"
    assert (steps(monitor), alerts) == ([], [])


@pytest.mark.parametrize("amount", [float("inf"), float("nan")])
def test_a_load_that_is_no_number_is_not_known(probe, clock, amount):
    monitor = new(probe, clock, load=lambda: amount)
    monitor.tick()
    assert monitor.snapshot().samples[-1].load is None


def test_an_explanation_is_json_also_where_something_is_not_known(clock):
    class FreshForAFewMinutes(Fragmenting):
        def sample(self) -> MemorySample:
            sample = super().sample()
            if clock.now() < 1000.0 + 185 * 60:
                return sample._replace(malloc_in_use_bytes=None, malloc_free_bytes=None)
            return sample

    probe = FreshForAFewMinutes(clock)
    monitor = new(probe, clock)
    for _ in range(190):
        monitor.tick()
        probe.free_bytes += MB
        clock.advance(60)
    told = monitor.explain().to_dict()
    assert json.loads(json.dumps(told, allow_nan=False, default=str))["schema"] == 1
    refused = [one for one in told["scales"] if one["rule"] == "growth of what malloc keeps free"]
    assert refused[0]["found"] is None


def test_the_end_of_an_alert_by_an_action_is_a_line_in_the_log(clock, monkeypatch, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    probe = Fragmenting(clock)

    def trim() -> bool:
        probe.free_bytes = 0
        return True

    monkeypatch.setattr("memguard_native._core.malloc_trim", trim)
    monitor = new(probe, clock, actions=ActionPolicy(trim=True))
    for _ in range(400):
        monitor.tick()
        probe.free_bytes += MB
        clock.advance(60)
        if "trim" in steps(monitor):
            break
    assert caplog.records[-1].message.startswith(f"memory {monitor.state}")


def test_after_a_deed_malloc_is_asked_again_for_its_figures(probe, clock):
    asked = []
    config = new(probe, clock, actions="auto")._config
    run = Run(config, probe, Load(), None, None, retry_malloc=lambda: asked.append(True))
    for _ in range(200):
        run.observe(probe.sample())
        probe.private_bytes += MB
        clock.advance(60)
    assert [record.step for record in run.response.records].count(Step.collect) == 1
    assert asked == [True]
