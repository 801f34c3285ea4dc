"""What a monitor writes to the log, and how it calls a function of the user's.

The logger is "memguard_native.memory". A line has its figures in `extra` too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from memguard_native.memory.alert import Alert, MemoryState
from memguard_native.memory.inheritance import InheritanceVerdict
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.window import Growth
from memguard_native.memory.wording import cause_of, forecast_text, rate_of, size

logger = logging.getLogger("memguard_native.memory")


class Callback:
    """A function of the user's: what it raises is counted, and logged the first time."""

    def __init__(self, name: str, function: Callable[..., object] | None) -> None:
        self._name = name
        self._function = function
        self.errors = 0

    def close(self) -> None:
        """From now on nothing is called."""
        self._function = None

    def __call__(self, argument: object) -> None:
        function = self._function
        if function is None:
            return
        try:
            function(argument)
        except BaseException:  # SystemExit too: it would end the monitor's thread without a word
            self.errors += 1
            if self.errors == 1:
                logger.exception("%s raised; further errors of it are only counted", self._name)


def log_sample(sample: MemorySample, growth: Growth | None, state: MemoryState) -> None:
    """A line a sample, at INFO, with the growth over the window."""
    if growth is None:
        verdict = "learning"
    else:
        verdict = f"{growth.rate_mb_per_hour:+.1f} MB/h over {growth.span / 60:.1f} min"
    logger.info(
        "memory: private %s, rss %s, malloc %s, %s",
        _size(sample.private_bytes),
        _size(sample.rss_bytes),
        _size(sample.malloc_in_use_bytes),
        verdict,
        extra={
            "private_bytes": sample.private_bytes,
            "rss_bytes": sample.rss_bytes,
            "malloc_in_use_bytes": sample.malloc_in_use_bytes,
            "rate_mb_per_hour": None if growth is None else growth.rate_mb_per_hour,
            "memory_state": str(state),
        },
    )


def log_state(state: MemoryState, rate_mb_per_hour: float | None) -> None:
    """A line for every change of the state, at INFO. An alert has a line of its own."""
    rate = "" if rate_mb_per_hour is None else f": {rate_mb_per_hour:+.1f} MB/h"
    logger.info(
        "memory %s%s",
        state,
        rate,
        extra={"memory_state": str(state), "rate_mb_per_hour": rate_mb_per_hour},
    )


def log_inheritance(verdict: InheritanceVerdict) -> None:
    """A line when it is known what becomes of the leak of the process before this one: at WARNING
    if replacing the process does not cure it."""
    logger.log(
        logging.WARNING if verdict.recycling_cures is False else logging.INFO,
        "memory: %s",
        verdict.text,
        extra={
            "inheritance_state": str(verdict.state),
            "recycling_cures": verdict.recycling_cures,
        },
    )


def log_alert(alert: Alert) -> None:
    """A line for every alert, at WARNING, or at ERROR if the limit is near."""
    text = f"; {alert.cause_text}" if alert.cause_text else ""
    expected = f"; {forecast_text(alert.forecast)}" if alert.forecast is not None else ""
    logger.log(
        logging.ERROR if alert.severity == "critical" else logging.WARNING,
        "memory alert: %s by %s over %.0f min (%s, limit %.1f MB/h)%s%s",
        cause_of(alert),
        rate_of(alert),
        alert.window_minutes,
        alert.signal,
        alert.threshold_mb_per_hour,
        text,
        expected,
        extra={
            "memory_state": "alert",
            "rate_mb_per_hour": alert.rate_mb_per_hour,
            "memory_alert": alert.to_dict(),
        },
    )


def _size(count_bytes: int | None) -> str:
    return "unknown" if count_bytes is None else size(count_bytes)
