"""What one run of a monitor sees and concludes: samples in; snapshot, log and callbacks out.

One thread writes, by replacing `Watch.latest`, which is immutable: so readers need no lock, and a
run that was stopped in the middle of a callback cannot write into the next one.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import BYTES_PER_MB, MemorySample
from memguard_native.memory.window import Growth, MemoryState, WindowRule

logger = logging.getLogger("memguard_native.memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSnapshot:
    """What a monitor knows at one instant."""

    state: MemoryState = MemoryState.learning
    samples: tuple[MemorySample, ...] = ()
    """The newest `window` samples that say something, oldest first."""
    sample_count: int = 0
    """Samples since the start."""
    growth: Growth | None = None
    """The growth over the window; None while the window says too little for a verdict."""
    alert: Alert | None = None
    """The alert that is raised and not cleared yet."""
    suspect: Suspect | None = None
    """The suspicion that is raised and not cleared yet."""
    forecast: Forecast | None = None
    """When memory reaches its limit; None without a suspicion or a limit."""
    limit: MemoryLimit | None = None
    """What memory will run into."""
    callback_errors: int = 0
    """How many times a callback raised."""
    probe_failures: int = 0
    """How many times a sample, or a part of it, could not be read."""

    @property
    def rate_mb_per_hour(self) -> float | None:
        """The rate of `growth`."""
        return None if self.growth is None else self.growth.rate_mb_per_hour


class Watch:
    """One run of a monitor with this configuration."""

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._rule = WindowRule(
            interval=config.interval,
            window=config.window,
            threshold_mb_per_hour=config.threshold_mb_per_hour,
        )
        self._on_sample = _Callback("on_sample", config.on_sample)
        self._on_alert = _Callback("on_alert", config.on_alert)
        self.latest = MonitorSnapshot()
        self.alerts: tuple[Alert, ...] = ()
        self.suspects: tuple[Suspect, ...] = ()
        self._limit = None
        if config.limit_bytes is not None:
            self._limit = MemoryLimit(config.limit_bytes, "config")

    def observe(self, sample: MemorySample) -> None:
        """Judge the next sample, then log it and call back."""
        before = self.latest
        self._rule.add(sample)
        alert = before.alert
        if self._config.rule == "floor" or self._rule.state is not MemoryState.alert:
            if alert is not None:
                cleared = dataclasses.replace(alert, cleared_sample=before.sample_count)
                self.alerts = (*self.alerts[:-1], cleared)
            alert = None
        elif alert is None:
            alert = self._new_alert(sample, before.sample_count)
            self.alerts = (*self.alerts, alert)
        self.latest = MonitorSnapshot(
            state=self._rule.state,
            samples=self._rule.samples,
            sample_count=before.sample_count + 1,
            growth=self._rule.growth,
            alert=alert,
            limit=self._limit,
            callback_errors=self._on_sample.errors + self._on_alert.errors,
        )
        self._tell(sample, before)

    def _new_alert(self, sample: MemorySample, number: int) -> Alert:
        growth = self._rule.growth
        assert growth is not None  # the rule raises no alert without
        return Alert(
            rule="window",
            severity="notice",
            sample=number,
            at=sample.wall_ns / 1e9,
            signal=growth.signal,
            window_minutes=growth.span / 60.0,
            rate_mb_per_hour=growth.rate_mb_per_hour,
            threshold_mb_per_hour=self._config.threshold_mb_per_hour,
        )

    def _tell(self, sample: MemorySample, before: MonitorSnapshot) -> None:
        now = self.latest
        if self._config.log_samples:
            _log_sample(sample, now)
        if now.state is not before.state:
            _log_change(now, self._config.threshold_mb_per_hour)
        self._on_sample(sample)
        if now.alert is not None and before.alert is None:
            self._on_alert(now.alert)
        self.latest = dataclasses.replace(
            now, callback_errors=self._on_sample.errors + self._on_alert.errors
        )


class _Callback:
    """A function of the user's: what it raises is counted, and logged the first time."""

    def __init__(self, name: str, function: Callable[..., object] | None) -> None:
        self._name = name
        self._function = function
        self.errors = 0

    def __call__(self, argument: object) -> None:
        if self._function is None:
            return
        try:
            self._function(argument)
        except BaseException:  # SystemExit too: it would end the monitor's thread without a word
            self.errors += 1
            if self.errors == 1:
                logger.exception("%s raised; further errors of it are only counted", self._name)


def _log_sample(sample: MemorySample, now: MonitorSnapshot) -> None:
    growth = now.growth
    if growth is None:
        verdict = "learning"
    else:
        verdict = f"{growth.rate_mb_per_hour:+.1f} MB/h over {growth.span / 60:.1f} min"
    logger.info(
        "memory: private %s, rss %s, malloc %s, %s",
        _megabytes(sample.private_bytes),
        _megabytes(sample.rss_bytes),
        _megabytes(sample.malloc_in_use_bytes),
        verdict,
        extra={
            "private_bytes": sample.private_bytes,
            "rss_bytes": sample.rss_bytes,
            "malloc_in_use_bytes": sample.malloc_in_use_bytes,
            "rate_mb_per_hour": now.rate_mb_per_hour,
            "memory_state": str(now.state),
        },
    )


def _log_change(now: MonitorSnapshot, threshold_mb_per_hour: float) -> None:
    growth = now.growth
    assert growth is not None  # no state is entered without a rate
    raised = now.state is MemoryState.alert
    logger.log(
        logging.WARNING if raised else logging.INFO,
        "memory %s: %s %+.1f MB/h over %.1f min, limit %.1f MB/h",
        "alert" if raised else "steady",
        growth.signal,
        growth.rate_mb_per_hour,
        growth.span / 60,
        threshold_mb_per_hour,
        extra={
            "signal": growth.signal,
            "rate_mb_per_hour": growth.rate_mb_per_hour,
            "window_minutes": growth.span / 60,
            "threshold_mb_per_hour": threshold_mb_per_hour,
            "memory_state": str(now.state),
        },
    )


def _megabytes(count_bytes: int | None) -> str:
    return "unknown" if count_bytes is None else f"{count_bytes / BYTES_PER_MB:.1f} MB"
