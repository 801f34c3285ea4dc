from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest

from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.actions import (
    ActionRecord,
    Actions,
    MemoryNow,
    Situation,
    Step,
    clears_alert,
    decide,
)
from memguard_native.memory.alert import Alert, Forecast
from memguard_native.testing import ManualClock

AUTO = ActionPolicy.named("auto")
MB = 2**20


def alert_of(cause: str = "native-heap", **fields: Any) -> Alert:
    values: dict[str, Any] = {
        "rule": "floor",
        "severity": "warning",
        "sample": 7,
        "at": 0.0,
        "signal": "live",
        "window_minutes": 180.0,
        "rate_mb_per_hour": 20.0,
        "threshold_mb_per_hour": 10.0,
        "cause": cause,
    }
    return Alert(**{**values, **fields})


def forecast_in(seconds: float) -> Forecast:
    return Forecast(
        seconds=seconds * 2,
        earliest_seconds=seconds,
        latest_seconds=seconds * 3,
        limit_bytes=1,
        limit_source="cgroup",
    )


def record_of(step: Step, at: float = 0.0, **fields: Any) -> ActionRecord:
    values: dict[str, Any] = {"at": at, "monotonic": at, "why": "", "alert_sample": 7}
    return ActionRecord(step=step, **{**values, **fields})


TOLD = tuple(record_of(step) for step in (Step.log, Step.callback, Step.advise))


def steps(alert: Alert, policy: ActionPolicy = AUTO, **fields: Any) -> list[str]:
    values: dict[str, Any] = {"now": 10.0, "raised_at": 0.0, "records": TOLD}
    situation = Situation(alert=alert, **{**values, **fields})
    return [str(decision.step) for decision in decide(policy, situation)]


# --- telling ---------------------------------------------------------------------------------


def test_an_alert_is_logged_then_told_then_advised_on():
    assert steps(alert_of(), records=()) == ["log", "callback", "advise"]


def test_nothing_is_told_twice():
    assert steps(alert_of()) == []


def test_the_next_alert_is_told_again():
    assert steps(alert_of(sample=99)) == ["log", "callback", "advise"]


def test_what_the_policy_does_not_allow_is_not_done():
    policy = ActionPolicy(log=False, callback=False, advise=False)
    assert steps(alert_of("python-objects"), policy, records=(), now=1e6) == []


def test_the_log_policy_only_tells():
    for cause in ("python-objects", "fragmentation", "unknown"):
        found = steps(alert_of(cause), ActionPolicy(), records=(), now=1e6)
        assert found == ["log", "callback", "advise"]


def test_the_window_rule_may_speak_and_nothing_more():
    alert = alert_of("unknown", rule="window", forecast=forecast_in(1.0))
    assert steps(alert, records=(), now=1e6) == ["log", "callback"]


# --- collect ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["python-objects", "unknown"])
def test_cycles_are_collected_where_objects_may_be_the_cause(cause):
    assert steps(alert_of(cause)) == ["collect"]


@pytest.mark.parametrize("cause", ["native-heap", "mmap", "shared-memory", "fragmentation"])
def test_cycles_are_not_collected_for_another_cause(cause):
    assert "collect" not in steps(alert_of(cause))


def test_cycles_are_collected_once_an_alert():
    collected = (*TOLD, record_of(Step.collect))
    assert steps(alert_of("python-objects"), records=collected) == []
    assert "collect" in steps(alert_of("python-objects", sample=99), records=collected)


# --- trim ------------------------------------------------------------------------------------


def trims(*records: ActionRecord, now: float = 10.0, sample: int = 7) -> bool:
    alert = alert_of("fragmentation", sample=sample)
    return "trim" in steps(alert, records=(*TOLD, *records), now=now, raised_at=now)


def worth_it(at: float = 0.0) -> ActionRecord:
    return record_of(Step.trim, at, before_bytes=100 * MB, gave_back_bytes=6 * MB)


def test_memory_is_trimmed_where_fragmentation_is_the_cause():
    assert trims()


@pytest.mark.parametrize("cause", ["native-heap", "mmap", "python-objects", "unknown"])
def test_memory_is_not_trimmed_for_another_cause(cause):
    assert "trim" not in steps(alert_of(cause))


def test_memory_is_trimmed_every_15_minutes_at_most_whatever_the_alert():
    assert not trims(worth_it(), now=899.0)
    assert not trims(worth_it(), now=899.0, sample=99)
    assert trims(worth_it(), now=900.0)


def test_memory_is_never_trimmed_again_after_a_trim_that_gave_back_little():
    useless = dataclasses.replace(worth_it(), gave_back_bytes=4 * MB)
    assert not trims(useless, now=1e6)
    assert not trims(useless, worth_it(1000.0), now=1e6, sample=99)


def test_a_trim_that_could_not_be_measured_or_was_not_done_proves_nothing():
    assert trims(record_of(Step.trim), now=1e6)
    assert trims(record_of(Step.trim, dry_run=True, before_bytes=100 * MB), now=1e6)


# --- the GPU ---------------------------------------------------------------------------------


def test_the_cache_of_torch_is_emptied_once_where_memory_of_the_gpu_grows():
    alert = alert_of("unknown", signal="gpu")
    assert steps(alert, has_torch=True) == ["empty_gpu_cache"]
    assert steps(alert, has_torch=True, records=(*TOLD, record_of(Step.empty_gpu_cache))) == []


def test_without_torch_nothing_is_done_about_the_gpu():
    assert steps(alert_of("unknown", signal="gpu")) == []


# --- an idle gap -----------------------------------------------------------------------------


def test_a_cure_waits_for_a_gap_of_200_ms_without_a_request():
    alert = alert_of("python-objects")
    assert steps(alert, idle_seconds=0.0) == []
    assert steps(alert, idle_seconds=0.19) == []
    assert steps(alert, idle_seconds=0.2) == ["collect"]


def test_where_the_load_is_not_known_a_cure_does_not_wait():
    assert steps(alert_of("python-objects"), idle_seconds=None) == ["collect"]


def test_a_server_that_is_never_idle_is_cured_after_its_patience():
    alert = alert_of("python-objects")
    assert steps(alert, idle_seconds=0.0, now=299.0) == []
    assert steps(alert, idle_seconds=0.0, now=300.0) == ["collect"]


def test_telling_waits_for_nothing():
    alert = alert_of("python-objects")
    assert steps(alert, idle_seconds=0.0, records=()) == ["log", "callback", "advise"]


# --- recycle ---------------------------------------------------------------------------------


def test_replacement_is_asked_for_when_the_alert_outlives_what_was_done():
    assert steps(alert_of(), now=599.0) == []
    assert steps(alert_of(), now=600.0) == ["recycle"]


def test_replacement_waits_for_a_cure_that_waits_for_a_gap():
    policy = dataclasses.replace(AUTO, idle_patience=3600.0)
    assert steps(alert_of("python-objects"), policy, now=700.0, idle_seconds=0.0) == []
    found = steps(alert_of("python-objects"), policy, now=700.0, idle_seconds=1.0)
    assert found == ["collect", "recycle"]


def test_replacement_is_asked_for_at_once_when_the_limit_may_be_near():
    assert steps(alert_of(forecast=forecast_in(1801.0))) == []
    assert steps(alert_of(forecast=forecast_in(1800.0))) == ["recycle"]


def test_a_near_limit_does_not_wait_for_a_gap():
    alert = alert_of("python-objects", forecast=forecast_in(60.0))
    assert steps(alert, idle_seconds=0.0) == ["recycle"]


def test_replacement_is_asked_for_again_only_after_a_while():
    asked = (*TOLD, record_of(Step.recycle, 600.0))
    assert steps(alert_of(), now=1199.0, records=asked) == []
    assert steps(alert_of(), now=1200.0, records=asked) == ["recycle"]
    assert steps(alert_of(forecast=forecast_in(1.0)), now=1199.0, records=asked) == []


# --- the hands -------------------------------------------------------------------------------


class FakeEffects:
    """Memory that obeys; notes what was done."""

    def __init__(self) -> None:
        self.clock = ManualClock(1000.0)
        self.now = MemoryNow(private_bytes=100 * MB, live_bytes=80 * MB, gpu_bytes=50 * MB)
        self.after = self.now
        self.done: list[str] = []
        self.error: Exception | None = None
        self.cost = 0.5

    def monotonic(self) -> float:
        return self.clock.now()

    def wall(self) -> float:
        return 1e9 + self.clock.now()

    def memory(self) -> MemoryNow:
        return self.now

    def _do(self, name: str) -> None:
        self.done.append(name)
        self.clock.advance(self.cost)
        if self.error is not None:
            raise self.error
        self.now = self.after

    def log(self, alert: Alert) -> None:
        self._do("log")

    def callback(self, alert: Alert) -> None:
        self._do("callback")

    def collect(self) -> None:
        self._do("collect")

    def trim(self) -> None:
        self._do("trim")

    def empty_gpu_cache(self) -> None:
        self._do("empty_gpu_cache")

    def advise(self, alert: Alert) -> None:
        self._do("advise")

    def recycle(self, alert: Alert) -> None:
        self._do("recycle")


@pytest.fixture
def effects() -> FakeEffects:
    return FakeEffects()


QUIET = {"log": False, "callback": False, "advise": False}
TRIM = ActionPolicy(trim=True, **QUIET)


def test_what_is_decided_is_done_in_order_and_recorded(effects):
    told: list[ActionRecord] = []
    actions = Actions(AUTO, effects, told.append)
    done = actions.act(alert_of("python-objects"), effects.monotonic())
    assert effects.done == ["log", "callback", "collect", "advise"]
    assert [record.step for record in done] == effects.done
    assert list(actions.records) == done == told


def test_what_was_done_is_not_done_again(effects):
    actions = Actions(AUTO, effects)
    actions.act(alert_of("python-objects"), effects.monotonic())
    assert actions.act(alert_of("python-objects"), effects.monotonic()) == []


def test_an_action_is_measured(effects):
    effects.after = MemoryNow(private_bytes=70 * MB, live_bytes=75 * MB)
    [record] = Actions(TRIM, effects).act(alert_of("fragmentation", signal="private"), 1000.0)
    assert (record.before_bytes, record.after_bytes) == (100 * MB, 70 * MB)
    assert record.gave_back_bytes == 30 * MB
    assert record.cost_seconds == 0.5
    assert (record.at, record.monotonic) == (1e9 + 1000.0, 1000.0)
    assert record.alert_sample == 7


def test_what_counts_is_the_memory_that_the_alert_is_about(effects):
    policy = ActionPolicy(collect=True, empty_gpu_cache=True, **QUIET)
    effects.after = MemoryNow(private_bytes=100 * MB, live_bytes=60 * MB, gpu_bytes=10 * MB)
    [record] = Actions(policy, effects).act(alert_of("unknown", signal="live"), 1000.0)
    assert record.gave_back_bytes == 20 * MB
    effects.now = MemoryNow(private_bytes=100 * MB, gpu_bytes=50 * MB)
    gpu = alert_of("fragmentation", signal="gpu")
    [record] = Actions(policy, effects).act(gpu, 1000.0, has_torch=True)
    assert (record.gave_back_bytes, record.before_bytes) == (40 * MB, 50 * MB)


def test_memory_that_grew_meanwhile_was_not_given_back(effects):
    effects.after = MemoryNow(private_bytes=120 * MB, live_bytes=120 * MB)
    [record] = Actions(TRIM, effects).act(alert_of("fragmentation"), 1000.0)
    assert record.gave_back_bytes == 0


def test_memory_that_is_not_known_was_not_given_back(effects):
    effects.now = MemoryNow()
    [record] = Actions(TRIM, effects).act(alert_of("fragmentation"), 1000.0)
    assert (record.before_bytes, record.gave_back_bytes) == (None, 0)


def test_a_dry_run_tells_and_does_nothing_else(effects):
    actions = Actions(ActionPolicy.named("dry-run"), effects)
    alert = alert_of("python-objects", forecast=forecast_in(1.0))
    done = actions.act(alert, effects.monotonic())
    assert effects.done == ["log", "callback", "advise"]
    assert [record.dry_run for record in done] == [False, False, True, False, True]
    assert [str(record.step) for record in done if record.dry_run] == ["collect", "recycle"]


def test_an_effect_that_raises_is_recorded_and_the_others_go_on(effects):
    effects.error = ValueError("no")
    done = Actions(AUTO, effects).act(alert_of("python-objects"), effects.monotonic())
    assert [record.error for record in done] == ["ValueError: no"] * 4


def test_memory_that_cannot_be_measured_stops_no_action(effects, caplog):
    def fail() -> MemoryNow:
        raise OSError("no /proc")

    effects.memory = fail
    [record] = Actions(TRIM, effects).act(alert_of("fragmentation"), 1000.0)
    assert (effects.done, record.before_bytes) == (["trim"], None)
    assert "could not be measured" in caplog.text


def test_a_callback_that_raises_is_logged_once(effects, caplog):
    def fail(record: ActionRecord) -> None:
        raise ValueError("no")

    actions = Actions(AUTO, effects, fail)
    assert len(actions.act(alert_of(), effects.monotonic())) == 3
    assert caplog.text.count("on_action raised") == 1


def test_each_deed_is_one_line_in_the_log(effects, caplog):
    caplog.set_level(logging.INFO)
    effects.after = MemoryNow(private_bytes=70 * MB)
    Actions(TRIM, effects).act(alert_of("fragmentation", signal="private"), 1000.0)
    assert [record.getMessage() for record in caplog.records] == [
        "memory action: trim: malloc holds memory that is free; gave back 30.0 MB in 500 ms"
    ]
    assert caplog.records[0].memory_action["gave_back_bytes"] == 30 * MB


def test_the_log_says_what_was_only_decided_and_what_failed(effects, caplog):
    caplog.set_level(logging.INFO)
    Actions(dataclasses.replace(TRIM, dry_run=True), effects).act(alert_of("fragmentation"), 0.0)
    effects.error = OSError("no")
    Actions(TRIM, effects).act(alert_of("fragmentation"), 0.0)
    first, second = [record.getMessage() for record in caplog.records]
    assert first.endswith("(dry run)")
    assert second.endswith("failed: OSError: no")


def test_the_newest_trim_is_remembered_for_ever_and_of_the_rest_the_newest_hundred(effects):
    actions = Actions(AUTO, effects)
    actions.act(alert_of("fragmentation", sample=0), effects.monotonic())
    for sample in range(1, 200):
        actions.act(alert_of(sample=sample), effects.monotonic())
    assert [record.step for record in actions.records].count(Step.trim) == 1
    assert len(actions.records) == 101


def test_an_alert_that_stands_for_days_is_told_once(effects):
    actions = Actions(AUTO, effects)
    for _ in range(300):
        effects.clock.advance(600.0)
        actions.act(alert_of("python-objects"), 1000.0)
    assert [effects.done.count(step) for step in ("log", "callback", "collect", "advise")] == [
        1
    ] * 4
    assert len(actions.records) == 104


def test_of_trims_the_newest_is_remembered(effects):
    actions = Actions(dataclasses.replace(TRIM, dry_run=True), effects)
    for _ in range(300):
        effects.clock.advance(900.0)
        actions.act(alert_of("fragmentation"), 1000.0)
    assert len(actions.records) == 100


def test_a_record_is_ready_for_json():
    found = record_of(Step.trim).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (found["schema"], found["step"]) == (1, "trim")


def test_an_alert_is_answered_when_half_of_its_growth_was_given_back():
    record = record_of(Step.trim, gave_back_bytes=50)
    assert clears_alert(record, 100.0)
    assert not clears_alert(record, 101.0)
    assert not clears_alert(record_of(Step.trim), 0.0)
