"""How memory, times and verdicts are told to people: the command line and the pictures use these.

MB is 2**20 bytes. Nothing here decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.sample import BYTES_PER_MB

_BYTES_PER_GB = 2**30
_MINUTE = 60.0
_HOUR = 3600.0
_DAY = 86400.0

_WHAT_GROWS = {
    "python-objects": "Python objects grow",
    "native-heap": "native heap grows",
    "fragmentation": "fragmentation grows",
    "mmap": "mapped memory grows",
    "shared-memory": "shared memory grows",
    "unknown": "memory grows",
}


def count(number: int, what: str) -> str:
    """ "1 sample", "2 samples"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A time: "45 s", "12 min", "3 h 05 min", "2 d 4 h", "never" if it is infinite."""
    if not math.isfinite(seconds):
        return "never"
    if seconds < 10:
        return f"{round(seconds, 2):g} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    if seconds < _HOUR and minutes < 60:
        return f"{minutes} min"
    if seconds < 2 * _DAY:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / _HOUR)
    return f"{hours // 24} d {hours % 24} h"


def size(count_bytes: float) -> str:
    """Memory: "184.2 MB", "2.00 GB"."""
    if count_bytes >= _BYTES_PER_GB:
        return f"{count_bytes / _BYTES_PER_GB:.2f} GB"
    return f"{count_bytes / BYTES_PER_MB:.1f} MB"


def change(mb: float) -> str:
    """A difference with its sign: "+3.8", "-0.2", and "+0.0" for next to nothing either way."""
    return f"{round(mb, 1) + 0.0:+.1f}"


def rate(mb_per_hour: float, low: float | None = None, high: float | None = None) -> str:
    """A growth: "23.4 MB/h (22.1 to 25.0)"."""
    between = "" if low is None or high is None else f" ({low:.1f} to {high:.1f})"
    return f"{mb_per_hour:.1f} MB/h{between}"


def rate_of(alert: Alert) -> str:
    """The growth of an alert, with its interval where it has one."""
    return rate(alert.rate_mb_per_hour, alert.rate_low_mb_per_hour, alert.rate_high_mb_per_hour)


def cause_of(alert: Alert) -> str:
    """What grows, as the beginning of a sentence."""
    return _WHAT_GROWS.get(alert.cause, alert.cause)


def forecast_text(forecast: Forecast) -> str:
    """When the limit is reached."""
    limit = f"{size(forecast.limit_bytes)} ({forecast.limit_source})"
    if not math.isfinite(forecast.seconds):
        return f"the limit of {limit} is not reached like this"
    between = f"{span(forecast.earliest_seconds)} to {span(forecast.latest_seconds)}"
    return f"the limit of {limit} is reached in {span(forecast.seconds)} ({between})"


def verdict(alerts: Sequence[Alert], suspects: Sequence[Suspect], *, is_known: bool = True) -> str:
    """One sentence on a process, from everything that was raised while it was watched.

    `is_known=False`: it was not watched for long enough to call it healthy.
    """
    leaks = [alert for alert in alerts if alert.rule != "window"]
    lasting = [alert for alert in leaks if alert.cleared_sample is None]
    if lasting:
        return f"LEAK: {cause_of(lasting[-1])} by {rate_of(lasting[-1])}"
    if leaks:
        ended = leaks[-1].cleared_sample
        return f"LEAK, over since sample {ended}: {cause_of(leaks[-1])} by {rate_of(leaks[-1])}"
    if any(one.cleared_sample is None for one in suspects):
        return f"SUSPECT: memory has a trend of {rate(suspects[-1].rate_mb_per_hour)}, no leak yet"
    if alerts:
        newest = alerts[-1]
        now = "grows" if newest.cleared_sample is None else "grew for a while"
        return f"NOTICE: memory {now} by {rate_of(newest)}; the window rule cannot tell a leak"
    if not is_known:
        return "TOO EARLY: not watched for long enough to tell"
    return "STEADY: no leak"


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of `values` in at most `width` characters, from their least to their greatest."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    width = min(width, len(known))
    edges = [len(known) * place // width for place in range(width + 1)]
    # The greatest of each piece: a peak of one sample must not vanish.
    peaks = [max(known[begin:end]) for begin, end in pairwise(edges)]
    least = min(peaks)
    # At least a twentieth of it from the lowest bar to the highest: else noise looks like a wave.
    height = max(max(peaks) - least, abs(least) / 20, 1e-9)
    step = height / (len(_BARS) - 1)
    return "".join(_BARS[round((peak - least) / step)] for peak in peaks)
