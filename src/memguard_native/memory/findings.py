"""What the detector found, put into words and numbers for people: alerts, suspects, forecasts.

Pure: a `Detector` after its step, and a sample, in; values out.
"""

from __future__ import annotations

from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.attribution import Attribution, attribute
from memguard_native.memory.detector import Detector, Leak
from memguard_native.memory.floor import measure_floor
from memguard_native.memory.forecast import forecast
from memguard_native.memory.inheritance import (
    NOTHING_INHERITED,
    InheritanceState,
    InheritanceVerdict,
)
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.window import Growth

_TREND_MINUTES = 60


def alert_of_leak(
    detector: Detector,
    leak: Leak,
    sample: MemorySample,
    number: int,
    threshold_mb_per_hour: float,
    expected: Forecast | None,
) -> Alert:
    """The alert for a leak that the detector believes in since this sample."""
    found = _cause(detector, leak)
    return Alert(
        rule="floor",
        severity="critical" if leak.near_limit else "warning",
        sample=number,
        at=sample.wall_ns / 1e9,
        signal=leak.signal,
        window_minutes=leak.window_minutes,
        rate_mb_per_hour=leak.growth.rate_mb_per_hour,
        rate_low_mb_per_hour=leak.growth.rate_low_mb_per_hour,
        rate_high_mb_per_hour=leak.growth.rate_high_mb_per_hour,
        threshold_mb_per_hour=threshold_mb_per_hour,
        cause=found.cause,
        cause_text=found.text,
        parts_mb_per_hour=found.parts_mb_per_hour,
        forecast=expected,
    )


def alert_of_window(
    growth: Growth, sample: MemorySample, number: int, threshold_mb_per_hour: float
) -> Alert:
    """The alert of the window rule."""
    return Alert(
        rule="window",
        severity="notice",
        sample=number,
        at=sample.wall_ns / 1e9,
        signal=growth.signal,
        window_minutes=growth.span / 60.0,
        rate_mb_per_hour=growth.rate_mb_per_hour,
        threshold_mb_per_hour=threshold_mb_per_hour,
    )


def suspect_of_trend(detector: Detector, sample: MemorySample, number: int) -> Suspect:
    """The suspicion that a trend raises with this sample."""
    rate = detector.trend_mb_per_hour
    assert rate is not None  # asked for only where there is a trend
    return Suspect(sample=number, at=sample.wall_ns / 1e9, rate_mb_per_hour=rate)


def expect_limit(
    detector: Detector,
    limit: MemoryLimit,
    room_mb: float,
    inherited: InheritanceVerdict = NOTHING_INHERITED,
) -> Forecast | None:
    """When memory reaches its limit if it goes on as it does in the leak, or in the trend of the
    last hour, or as in the process before this one; None if there is nothing of these.
    """
    leak = detector.leak
    window = _TREND_MINUTES
    is_inherited = False
    if leak is not None and leak.signal != "gpu":
        window = leak.window_minutes
        rate, low, high = leak.growth[:3]
    elif detector.trend_mb_per_hour is not None:
        growth = measure_floor(detector.series.column("private"), window)
        if growth is None:
            return None
        rate, low, high = growth[:3]
    elif inherited.state is InheritanceState.inherited:
        is_inherited = True
        rate = inherited.rate_mb_per_hour or 0.0
        low, high = inherited.rate_low_mb_per_hour or 0.0, inherited.rate_high_mb_per_hour or 0.0
    else:
        return None
    return forecast(
        room_mb=room_mb,
        peak_above_mb=detector.peak_above_mb(),
        floor_below_mb=detector.floor_below_mb(window),
        rate_mb_per_hour=rate,
        rate_low_mb_per_hour=low,
        rate_high_mb_per_hour=high,
        limit_bytes=limit.bytes,
        limit_source=limit.source,
        inherited=is_inherited,
    )


def leak_of_predecessor(verdict: InheritanceVerdict) -> Leak | None:
    """The leak that this process has, as the one before it had, once that is confirmed."""
    if verdict.growth is None or verdict.window_minutes is None:
        return None
    signal = "private" if verdict.cause == "fragmentation" else "live"
    return Leak(signal, verdict.window_minutes, verdict.growth, near_limit=False)


def parts_of_growth(detector: Detector) -> dict[str, float]:
    """How fast each part of memory grew in the last hour, in MB/hour."""
    return attribute(detector.series, _TREND_MINUTES, fragmented=True).parts_mb_per_hour


def _cause(detector: Detector, leak: Leak) -> Attribution:
    if leak.signal == "gpu":
        return Attribution("unknown", "memory of the GPU", {})
    return attribute(detector.series, leak.window_minutes, fragmented=leak.signal == "private")
