"""Courses of memory for tests: one number a minute, made into samples and fed to a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from memguard_native.memory.detector import Detector, Leak
from memguard_native.memory.minutes import MinuteSeries
from memguard_native.memory.sample import MemorySample

MB = 2**20
MINUTE_NS = 60 * 10**9

_BYTES = {
    "rss_mb": "rss_bytes",
    "shared_mb": "shmem_bytes",
    "swap_mb": "swap_bytes",
    "arenas_mb": "python_arena_bytes",
    "in_use_mb": "malloc_in_use_bytes",
    "free_mb": "malloc_free_bytes",
    "gpu_mb": "gpu_bytes",
}


def sample(minute: float, private_mb: float | None = None, **known: Any) -> MemorySample:
    """`known`: fields in MB by their short names, or as `MemorySample` names them; None or NaN is
    not known. malloc's figures come together: one alone has the other one 0."""
    known = {name: value for name, value in known.items() if value is not None and value == value}
    if "free_mb" in known or "in_use_mb" in known:
        known = {"free_mb": 0, "in_use_mb": 0} | known
    fields = {name: value for name, value in known.items() if name not in _BYTES}
    fields |= {_BYTES[name]: round(known[name] * MB) for name in known if name in _BYTES}
    if private_mb is not None:
        shared = fields.get("shmem_bytes", 0) + fields.get("swap_bytes", 0)
        fields["anon_bytes"] = round(private_mb * MB) - shared
    return MemorySample(round(minute * MINUTE_NS), 0, **fields)


def samples(
    private_mb: Iterable[float], *, first: float = 0.0, apart: float = 1.0, **columns: Any
) -> Iterator[MemorySample]:
    """One sample every `apart` minutes from `first` on; NaN in `private_mb` is none at all.

    `columns`: a number per sample, or one for all of them.
    """
    values = np.asarray(private_mb, dtype=float).tolist()
    rows = {
        name: np.broadcast_to(np.asarray(column, dtype=float), len(values)).tolist()
        for name, column in columns.items()
    }
    for i, value in enumerate(values):
        if value == value:
            yield sample(first + i * apart, value, **{name: row[i] for name, row in rows.items()})


def series_of(private_mb: Iterable[float], **columns: Any) -> MinuteSeries:
    series = MinuteSeries()
    for each in samples(private_mb, **columns):
        series.add(each)
    return series


def detector(**settings: Any) -> Detector:
    return Detector(**({"threshold_mb_per_hour": 10.0, "warm_up_minutes": 5.0} | settings))


def fed(fresh: Detector, course: Iterable[MemorySample], room_mb: float | None = None) -> Detector:
    for each in course:
        fresh.add(each, room_mb=room_mb)
    return fresh


class Found(NamedTuple):
    sample: int
    minute: int
    leak: Leak


def first_leak(
    private_mb: Iterable[float],
    *,
    settings: dict[str, Any] | None = None,
    room_mb: float | None = None,
    **columns: Any,
) -> Found | None:
    """When a leak is first believed in, and which."""
    fresh = detector(**(settings or {}))
    for number, each in enumerate(samples(private_mb, **columns)):
        fresh.add(each, room_mb=room_mb)
        if fresh.leak is not None:
            return Found(number, fresh.series.minute, fresh.leak)
    return None


def ramp(minutes: int, mb_per_hour: float, start_mb: float = 100.0) -> np.ndarray:
    return start_mb + np.arange(minutes) * mb_per_hour / 60.0
