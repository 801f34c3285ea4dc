"""`Response`: what a monitor does about what it finds: evidence on suspicion, actions on an alert.

Called after each verdict, on the thread that judges. It never raises: what fails is recorded.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable, Mapping

from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.actions import ActionRecord, Actions, Step, clears_alert, was_deed
from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.effects import ProcessEffects, torch_on_gpu
from memguard_native.memory.evidence import EvidenceCollector
from memguard_native.memory.probe import Probe
from memguard_native.memory.sample import BYTES_PER_MB
from memguard_native.memory.telling import Callback, log_alert
from memguard_native.memory.watch import Watch


class Response:
    """For one run of a monitor.

    Args:
        config: what may be done, and the user's callbacks.
        probe: measures what an action gives back.
        idle_seconds: for how long nothing has been in flight; None: the load is not known.
        retry_malloc: has the sampler read malloc's figures again, if it gave them up as too dear.
    """

    def __init__(
        self,
        config: MonitorConfig,
        probe: Probe,
        idle_seconds: Callable[[], float | None],
        retry_malloc: Callable[[], object] | None = None,
    ) -> None:
        self._monotonic = time.monotonic if config.clock is None else config.clock.now
        self._on_alert = Callback("on_alert", config.on_alert)
        self._on_action = Callback("on_action", config.on_action)
        self._on_recycle = Callback("on_recycle", config.on_recycle)
        effects = ProcessEffects(
            log_alert,
            self._on_alert,
            None if config.on_recycle is None else self._on_recycle,
            probe,
            monotonic=self._monotonic,
        )
        told = config.actions
        # Apart, because an action is told by the sample that raised its alert, and two rules may
        # raise theirs with the same one.
        self._actions = {
            "window": Actions(
                ActionPolicy(log=told.log, callback=told.callback, advise=False),
                effects,
                self._on_action,
            ),
            "floor": Actions(config.actions, effects, self._on_action),
        }
        self._evidence: EvidenceCollector | None = None
        if config.evidence:
            self._evidence = EvidenceCollector()
            # A monitor that is dropped without a stop() must not leave the process being sampled.
            weakref.finalize(self, self._evidence.disarm)
        self._idle_seconds = idle_seconds
        self._retry_malloc = retry_malloc
        self._raised_at: dict[str, float] = {}
        self._reported: Mapping[str, object] | None = None
        self._is_closed = False

    @property
    def callback_errors(self) -> int:
        """How many times the user's `on_alert`, `on_action` and `on_recycle` raised."""
        return self._on_alert.errors + self._on_action.errors + self._on_recycle.errors

    @property
    def records(self) -> tuple[ActionRecord, ...]:
        """The actions that were taken, oldest first."""
        found = [record for actions in self._actions.values() for record in actions.records]
        return tuple(sorted(found, key=lambda record: record.monotonic))

    @property
    def evidence(self) -> Mapping[str, object] | None:
        """What was collected last; None if nothing was."""
        return self._reported

    def respond(self, watch: Watch) -> None:
        """Do what is due after a sample; nothing when closed."""
        if self._is_closed:  # by a callback for this very sample
            return
        self._collect_evidence(watch)
        for rule, actions in self._actions.items():
            alert = watch.standing(rule)
            if alert is None:
                self._raised_at.pop(rule, None)
                continue
            raised_at = self._raised_at.setdefault(rule, self._monotonic())
            if alert.forecast != watch.latest.forecast:
                # That of the alert is of when it was raised.
                alert = dataclasses.replace(alert, forecast=watch.latest.forecast)
            records = actions.act(
                alert,
                raised_at,
                idle_seconds=self._idle_seconds(),
                has_torch=torch_on_gpu() is not None,
            )
            leak = watch.detector.leak
            grown = 0.0 if leak is None else leak.growth.grown_mb * BYTES_PER_MB
            if self._retry_malloc is not None and any(map(was_deed, records)):
                self._retry_malloc()
            for record in records:
                if rule == "floor" and clears_alert(record, grown):
                    watch.clear_leak()
                if record.step is Step.trim and record.gave_back_bytes:
                    watch.detector.restart_trimmed()

    def abandon(self) -> None:
        """In a forked child: do nothing more, and leave alone what the parent has begun."""
        if self._evidence is not None:
            self._evidence.abandon()
        self.close()

    def close(self) -> None:
        """Leave nothing behind in the process, and do nothing more: the run is over."""
        self._is_closed = True
        for callback in (self._on_alert, self._on_action, self._on_recycle):
            callback.close()
        if self._evidence is not None:
            self._evidence.disarm()

    def _collect_evidence(self, watch: Watch) -> None:
        if self._evidence is None:
            return
        now = self._monotonic()
        alert = watch.standing("floor")
        if alert is not None or watch.latest.suspect is not None:
            self._evidence.arm(now, "unknown" if alert is None else alert.cause)
        if self._evidence.due(now):
            self._evidence.step(now)
            self._reported = self._evidence.report()
        if alert is not None and alert.evidence is not self._reported:
            watch.add_evidence(alert, self._reported)
