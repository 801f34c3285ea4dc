"""What a monitor can be told, validated at once. Pure: no threads, no clock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memguard_native import _core
from memguard_native.errors import ConfigError, is_finite_number
from memguard_native.memory.action_policy import SILENT, ActionPolicy
from memguard_native.memory.actions import ActionRecord
from memguard_native.memory.alert import Alert
from memguard_native.memory.probe import Probe
from memguard_native.memory.sample import MemorySample

_MIN_INTERVAL = 0.001
_MAX_INTERVAL = 30 * 24 * 3600.0
_MIN_WINDOW = 3
_MAX_WINDOW = 100_000
DEFAULT_WARM_UP = 300.0

_RULES = ("window", "floor", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorConfig:
    """The settings of one monitor; see `MemoryMonitor` for their meaning.

    Raises ConfigError: a value of the wrong type or out of its range.
    """

    interval: float
    window: int
    threshold_mb_per_hour: float
    rule: str
    warm_up: float
    limit_bytes: int | None
    minute_s: float = 60.0
    evidence: bool = False
    actions: ActionPolicy = SILENT
    on_sample: Callable[[MemorySample], object] | None = None
    on_alert: Callable[[Alert], object] | None = None
    on_action: Callable[[ActionRecord], object] | None = None
    on_recycle: Callable[[Alert], object] | None = None
    load: Callable[[], float] | None = None
    gpu: str | None = None
    log_samples: bool = False
    probe: Probe | None = None
    clock: _core.ManualClock | None = None
    scope: str = "local"
    namespace: str | None = None

    def __post_init__(self) -> None:
        _check_interval(self.interval)
        _check_window(self.window)
        _check_threshold(self.threshold_mb_per_hour)
        if self.rule not in _RULES:
            raise ConfigError("rule", self.rule, "must be one of 'window', 'floor', 'both'")
        _check_seconds("warm_up", self.warm_up, 0.0)
        _check_seconds("minute_s", self.minute_s, _MIN_INTERVAL)
        _check_limit(self.limit_bytes)
        for name in ("on_sample", "on_alert", "on_action", "on_recycle", "load"):
            _check_callback(name, getattr(self, name))
        if self.gpu not in (None, "auto"):
            raise ConfigError("gpu", self.gpu, "must be 'auto' or None")
        if not isinstance(self.evidence, bool):
            raise ConfigError("evidence", self.evidence, "must be True or False")
        if not isinstance(self.log_samples, bool):
            raise ConfigError("log_samples", self.log_samples, "must be True or False")
        if self.probe is not None and not callable(getattr(self.probe, "sample", None)):
            raise ConfigError("probe", self.probe, "must have a method sample(), or be None")
        if self.clock is not None and not isinstance(self.clock, _core.ManualClock):
            raise ConfigError("clock", self.clock, "must be a ManualClock or None")
        if self.scope not in ("local", "host"):
            raise ConfigError("scope", self.scope, "must be one of 'local', 'host'")
        if self.namespace is not None and not isinstance(self.namespace, str):
            raise ConfigError("namespace", self.namespace, "must be a text or None")


def _check_interval(value: Any) -> None:
    if not is_finite_number(value) or not _MIN_INTERVAL <= value <= _MAX_INTERVAL:
        allowed = f"must be seconds from {_MIN_INTERVAL} to {_MAX_INTERVAL:.0f} (30 days)"
        raise ConfigError("interval", value, allowed)


def _check_seconds(field: str, value: Any, least: float) -> None:
    if not is_finite_number(value) or not least <= value <= _MAX_INTERVAL:
        allowed = f"must be seconds from {least:g} to {_MAX_INTERVAL:.0f} (30 days)"
        raise ConfigError(field, value, allowed)


def _check_limit(value: Any) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and (not is_int or value <= 0):
        raise ConfigError("limit_bytes", value, "must be a whole number of bytes > 0, or None")


def _check_window(value: Any) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or not _MIN_WINDOW <= value <= _MAX_WINDOW:
        allowed = f"must be an int from {_MIN_WINDOW} to {_MAX_WINDOW}: a slope needs three samples"
        raise ConfigError("window", value, allowed)


def _check_threshold(value: Any) -> None:
    if not is_finite_number(value) or value <= 0:
        raise ConfigError("threshold_mb_per_hour", value, "must be a finite number > 0")


def _check_callback(field: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise ConfigError(field, value, "must be callable or None")
    # Nobody would await its result: it would silently never run.
    if inspect.iscoroutinefunction(value):
        raise ConfigError(field, value, "must not be a coroutine function: it runs on a thread")
