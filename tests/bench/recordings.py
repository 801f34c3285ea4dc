"""Traces made by hand for the tests of the detector's benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.detector.traces import Trace

from memguard_native.memory.sample import BYTES_PER_MB, MemorySample

MINUTE_NS = 60_000_000_000


def recorded(
    private_mb: Sequence[float], name: str = "ok_flat", load: Sequence[float] = (), **labels: Any
) -> Trace:
    """A sample a minute; the resident set is 10 MB more than private memory."""
    samples = [
        MemorySample(
            minute * MINUTE_NS,
            minute * MINUTE_NS,
            rss_bytes=round((mb + 10.0) * BYTES_PER_MB),
            anon_bytes=round(mb * BYTES_PER_MB),
            malloc_in_use_bytes=round(mb * BYTES_PER_MB),
            load=load[minute] if load else None,
        )
        for minute, mb in enumerate(private_mb)
    ]
    return Trace(name=name, leaks=name.startswith("leak"), samples=samples, **labels)


def rising(mb_per_hour: float, minutes: int = 420, start_mb: float = 100.0) -> list[float]:
    return [start_mb + mb_per_hour * minute / 60.0 for minute in range(minutes)]
