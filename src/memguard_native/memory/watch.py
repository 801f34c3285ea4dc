"""What one run of a monitor sees and concludes: samples in; snapshot, alerts and suspects out.

One code, two feeders: a monitor of this process and a replay of a trace both hand their samples to
a `Watch`. One thread writes, by replacing `Watch.latest`, which is immutable: so readers need no
lock, and a run that was stopped in the middle of a callback cannot write into the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

from memguard_native.memory.alert import Alert, Forecast, MemoryState, Suspect
from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.detector import Detector
from memguard_native.memory.findings import (
    alert_of_leak,
    alert_of_window,
    expect_limit,
    leak_of_predecessor,
    parts_of_growth,
    suspect_of_trend,
)
from memguard_native.memory.inheritance import Inheritance
from memguard_native.memory.learnt import Learnt
from memguard_native.memory.limits import MemoryLimit, room_bytes
from memguard_native.memory.sample import BYTES_PER_MB, MemorySample
from memguard_native.memory.snapshot import MonitorSnapshot
from memguard_native.memory.telling import Callback, log_inheritance, log_sample, log_state
from memguard_native.memory.window import WindowRule


class Responder(Protocol):
    """Does something about what a `Watch` found."""

    @property
    def callback_errors(self) -> int:
        """How many times a callback of the user's raised."""
        ...

    def respond(self, watch: Watch) -> None:
        """Do what is due after a sample, its verdict being in `watch.latest`."""


class Watch:
    """One run of a monitor with this configuration.

    `find_limit` tells what memory will run into, default the configured limit alone; `responder`
    does something about alerts and suspicions: `memory.response`, default nothing; `learnt` is what
    the process before this one has left; `most_kept` is how many alerts and how many suspicions
    are kept, default all.
    """

    def __init__(
        self,
        config: MonitorConfig,
        *,
        find_limit: Callable[[MemorySample], MemoryLimit | None] | None = None,
        responder: Responder | None = None,
        learnt: Learnt | None = None,
        most_kept: int | None = None,
    ) -> None:
        self._config = config
        self._oldest_kept = None if most_kept is None else -most_kept
        self._find_limit = self._configured_limit if find_limit is None else find_limit
        self._responder = responder
        self.rule = WindowRule(
            interval=config.interval,
            window=config.window,
            threshold_mb_per_hour=config.threshold_mb_per_hour,
        )
        self.detector = Detector(
            threshold_mb_per_hour=config.threshold_mb_per_hour,
            warm_up_minutes=config.warm_up / 60.0,  # minutes of `minute_s`, as all others
            interval=config.interval,
            minute_s=config.minute_s,
        )
        self._inheritance = Inheritance(learnt)
        self._on_sample = Callback("on_sample", config.on_sample)
        self.latest = MonitorSnapshot()
        self.alerts: tuple[Alert, ...] = ()
        """Of this run, oldest first."""
        self.suspects: tuple[Suspect, ...] = ()
        """Of this run, oldest first."""
        self.parts_mb_per_hour: dict[str, float] = {}
        """How fast each part of memory grew in the last hour, while there is reason to ask."""
        self._parts_minute: int | None = None
        self._standing: dict[str, Alert] = {}

    def observe(self, sample: MemorySample) -> None:
        """Judge the next sample, then log it, act on the verdict and call back."""
        before = self.latest
        number = before.sample_count
        limit = self._find_limit(sample)
        expected: Forecast | None = None
        self.rule.add(sample)
        if self._config.rule != "window":
            room = None if limit is None else room_bytes(sample, limit)
            room_mb = None if room is None else room / BYTES_PER_MB
            if self.detector.add(sample, room_mb=room_mb):
                self._inherit()
            if limit is not None and room_mb is not None:
                expected = expect_limit(self.detector, limit, room_mb, self._inheritance.verdict)
            self._judge_floor(sample, number, expected)
        if self._config.rule != "floor":
            self._judge_window(sample, number)
        self.latest = MonitorSnapshot(
            state=self._state(),
            samples=self.rule.samples,
            sample_count=number + 1,
            growth=self.rule.growth,
            alert=self._alert(),
            suspect=self._suspect(),
            forecast=expected,
            limit=limit,
            inherited=self._inheritance.verdict,
            callback_errors=before.callback_errors,
        )
        self._measure_parts()
        self._tell(sample, before)

    def standing(self, rule: str) -> Alert | None:
        """The alert of this rule that is raised and not cleared yet."""
        return self._standing.get(rule)

    def add_evidence(self, alert: Alert, evidence: Mapping[str, object] | None) -> None:
        """Tell more of an alert that stands."""
        self._replace(alert, dataclasses.replace(alert, evidence=evidence))

    def clear_leak(self) -> None:
        """Memory was given back: the leak has to be proved anew."""
        self.detector.forget()
        self._clear("floor", self.latest.sample_count - 1)

    def _inherit(self) -> None:
        before = self._inheritance.verdict
        verdict = self._inheritance.observe(self.detector.series)
        if verdict.state is before.state:
            return
        log_inheritance(verdict)
        leak = leak_of_predecessor(verdict)
        if leak is not None and self.detector.leak is None:
            self.detector.believe(leak)

    def _judge_floor(self, sample: MemorySample, number: int, expected: Forecast | None) -> None:
        leak = self.detector.leak
        standing = self._standing.get("floor")
        is_worse = leak is not None and leak.near_limit
        if leak is None or (standing is not None and standing.severity == "warning" and is_worse):
            self._clear("floor", number)
        if leak is not None and "floor" not in self._standing:
            threshold = self._config.threshold_mb_per_hour
            self._raise(alert_of_leak(self.detector, leak, sample, number, threshold, expected))
        suspect = self._suspect()
        if self.detector.trend_mb_per_hour is None:
            if suspect is not None:
                over = dataclasses.replace(suspect, cleared_sample=number)
                self.suspects = (*self.suspects[:-1], over)
        elif suspect is None:
            raised = suspect_of_trend(self.detector, sample, number)
            self.suspects = (*self.suspects, raised)[self._oldest_kept :]

    def _judge_window(self, sample: MemorySample, number: int) -> None:
        if self.rule.state is not MemoryState.alert:
            self._clear("window", number)
        elif "window" not in self._standing:
            growth = self.rule.growth
            assert growth is not None  # the rule raises no alert without
            threshold = self._config.threshold_mb_per_hour
            self._raise(alert_of_window(growth, sample, number, threshold))

    def _state(self) -> MemoryState:
        if self._config.rule == "window":
            return self.rule.state
        if "floor" in self._standing:
            return MemoryState.alert
        # In mode "both" the window rule is no more than a reason to look: it cannot tell a leak.
        if self._suspect() is not None or "window" in self._standing:
            return MemoryState.suspect
        return MemoryState.learning if self.detector.is_learning else MemoryState.steady

    def _alert(self) -> Alert | None:
        return self._standing.get("floor") or self._standing.get("window")

    def _suspect(self) -> Suspect | None:
        newest = self.suspects[-1] if self.suspects else None
        return newest if newest is not None and newest.cleared_sample is None else None

    def _raise(self, alert: Alert) -> None:
        self._standing[alert.rule] = alert
        self.alerts = (*self.alerts, alert)[self._oldest_kept :]

    def _clear(self, rule: str, number: int) -> None:
        alert = self._standing.pop(rule, None)
        if alert is not None:
            self._replace(alert, dataclasses.replace(alert, cleared_sample=number))

    def _replace(self, old: Alert, new: Alert) -> None:
        self.alerts = tuple(new if alert is old else alert for alert in self.alerts)
        if self._standing.get(old.rule) is old:
            self._standing[old.rule] = new

    def _measure_parts(self) -> None:
        if self.latest.state not in (MemoryState.suspect, MemoryState.alert):
            self.parts_mb_per_hour, self._parts_minute = {}, None
        elif self._parts_minute != self.detector.series.minute:
            self._parts_minute = self.detector.series.minute
            self.parts_mb_per_hour = parts_of_growth(self.detector)

    def _tell(self, sample: MemorySample, before: MonitorSnapshot) -> None:
        now = self.latest
        if self._config.log_samples:
            log_sample(sample, now.growth, now.state)
        if now.state is not before.state and now.state is not MemoryState.alert:
            log_state(now.state, now.rate_mb_per_hour)
        self._on_sample(sample)
        errors = self._on_sample.errors
        if self._responder is not None:
            self._responder.respond(self)
            errors += self._responder.callback_errors
        self.latest = dataclasses.replace(
            now,
            state=self._state(),
            alert=self._alert(),
            callback_errors=errors,
        )
        if self.latest.state is not now.state:  # an action has answered the alert
            log_state(self.latest.state, self.latest.rate_mb_per_hour)

    def _configured_limit(self, _sample: MemorySample) -> MemoryLimit | None:
        limit_bytes = self._config.limit_bytes
        return None if limit_bytes is None else MemoryLimit(limit_bytes, "config")
