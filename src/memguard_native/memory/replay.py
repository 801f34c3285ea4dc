"""`replay`: the monitor's verdicts on a recorded trace, and what it would have said when.

One code, two feeders: the samples of a file go through the same `Watch` as those of a process that
runs, one by one, so a verdict knows nothing of later rows. The number of a sample is the number of
its row, from 0. All times, the seconds of a forecast too, are what the trace stands for.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path

from memguard_native.errors import ConfigError, is_finite_number
from memguard_native.memory.alert import Alert, Forecast, MemoryState, Suspect
from memguard_native.memory.config import DEFAULT_WARM_UP, MonitorConfig
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.series import Series
from memguard_native.memory.trace_file import read_trace
from memguard_native.memory.watch import Watch

_SCHEMA = 1
# Rows that tell the interval of a trace: as many as the window rule needs for its first verdict.
_ROWS_FOR_INTERVAL = 12
_LEAST_INTERVAL = 0.001

_KEYS_OF_ALERT = (
    "rule", "severity", "signal", "window_minutes", "rate_mb_per_hour", "rate_low_mb_per_hour",
    "rate_high_mb_per_hour", "threshold_mb_per_hour", "cause", "cause_text", "parts_mb_per_hour",
    "forecast", "cleared_sample",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the monitor says of one trace."""

    trace: str
    """The path, as it was given."""
    samples: int
    minutes: float
    """When the last sample was taken, from the zero of the trace."""
    rule: str
    alerts: tuple[Alert, ...]
    suspects: tuple[Suspect, ...]
    forecast: Forecast | None
    """The one that holds at the end of the trace."""
    state: MemoryState
    """At the end of the trace."""
    limit: MemoryLimit | None
    """What the forecast is of."""
    series: Series = field(repr=False, compare=False)
    """For a picture."""

    def to_dict(self) -> dict[str, object]:
        """Ready for JSON: "schema", "trace", "samples", "minutes", "rule", "alerts", "suspects",
        "forecast"."""
        return {
            "schema": _SCHEMA,
            "trace": self.trace,
            "samples": self.samples,
            "minutes": round(self.minutes, 1),
            "rule": self.rule,
            "alerts": [_alert(one) for one in self.alerts],
            "suspects": [
                {
                    "sample": one.sample,
                    "minute": _minute(one),
                    "cleared_sample": one.cleared_sample,
                    "rate_mb_per_hour": one.rate_mb_per_hour,
                }
                for one in self.suspects
            ],
            "forecast": None if self.forecast is None else self.forecast.to_dict(),
        }


def replay(
    path: str | Path,
    *,
    rule: str = "floor",
    threshold_mb_per_hour: float = 10.0,
    warm_up: float = DEFAULT_WARM_UP,
    limit_bytes: int | None = None,
    minute_s: float = 60.0,
    with_load: bool = True,
    window: int = 12,
) -> Replay:
    """Judge a trace.

    Args:
        path: a file as `trace_file` describes it.
        rule: "floor", "window" or "both".
        threshold_mb_per_hour: growth up to this is no leak; default 10.
        warm_up: seconds after row 0 in which growth is not held against the program; default 300.
        limit_bytes: what the forecast is of; default: none, and no forecast.
        minute_s: seconds of the trace that stand for one minute; default 60.
        with_load: use what the trace tells of the load.
        window: samples of the window rule; default 12.

    Raises:
        ConfigError: an argument is of the wrong type or out of its range.
        TraceError: the file cannot be read or is no trace.
    """
    if not is_finite_number(minute_s) or minute_s <= 0:
        raise ConfigError("minute_s", minute_s, "must be a finite number > 0")
    samples = read_trace(path, minute_s=minute_s, with_load=with_load)
    first = list(islice(samples, _ROWS_FOR_INTERVAL))
    watch = Watch(
        settings_for_others(
            rule=rule,
            interval=_interval_of(first),
            window=window,
            threshold_mb_per_hour=threshold_mb_per_hour,
            warm_up=warm_up,
            limit_bytes=limit_bytes,
        )
    )
    series = Series()
    newest = first[-1]
    for newest in chain(first, samples):
        watch.observe(newest)
        series.add(newest)
    return Replay(
        trace=str(path),
        samples=watch.latest.sample_count,
        minutes=newest.monotonic_ns / 60e9,
        rule=rule,
        alerts=watch.alerts,
        suspects=watch.suspects,
        forecast=watch.latest.forecast,
        state=watch.latest.state,
        limit=watch.latest.limit,
        series=series,
    )


def settings_for_others(
    *,
    rule: str,
    interval: float,
    threshold_mb_per_hour: float,
    warm_up: float,
    limit_bytes: int | None,
    window: int = 12,
) -> MonitorConfig:
    """Settings of a `Watch` whose samples are of a file or of another process.

    Nothing is called, collected or done: there is nothing here to do it to.

    Raises ConfigError: an argument is of the wrong type or out of its range.
    """
    return MonitorConfig(
        interval=interval,
        window=window,
        threshold_mb_per_hour=threshold_mb_per_hour,
        rule=rule,
        warm_up=warm_up,
        limit_bytes=limit_bytes,
        on_sample=None,
        on_alert=None,
        log_samples=False,
        probe=None,
        clock=None,
        scope="local",
        namespace=None,
    )


def _interval_of(first: list[MemorySample]) -> float:
    # Known at the start of a live monitor, so known here before the first verdict: no look-ahead.
    steps = [
        (later.monotonic_ns - earlier.monotonic_ns) / 1e9 for earlier, later in pairwise(first)
    ]
    return max(_LEAST_INTERVAL, statistics.median(steps)) if steps else 60.0


def _minute(told: Alert | Suspect) -> float:
    return round(told.at / 60.0, 1)  # a trace has no wall time: `at` is since its zero


def _alert(alert: Alert) -> dict[str, object]:
    found = alert.to_dict()
    told = {key: found[key] for key in _KEYS_OF_ALERT}
    return {"sample": alert.sample, "minute": _minute(alert), **told}
