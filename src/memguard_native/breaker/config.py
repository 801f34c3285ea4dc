"""What a breaker can be told, validated at once. Pure: no threads, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from memguard_native.errors import ConfigError

_MAX_NAME_BYTES = 120
_MAX_FAILURE_THRESHOLD = 2**31 - 1
_MIN_RESET_TIMEOUT = 0.001
_MAX_RESET_TIMEOUT = 30 * 24 * 3600.0
_MIN_PROBE_TIMEOUT = 0.016
_MAX_PROBE_TIMEOUT = 64_800.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """The rules of one breaker; see `CircuitBreaker` for their meaning.

    Raises ConfigError: a value of the wrong type or out of its range.
    """

    name: str
    failure_threshold: int = 5
    reset_timeout: float = 60.0

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_failure_threshold(self.failure_threshold)
        _check_reset_timeout(self.reset_timeout)

    @property
    def max_reset_timeout(self) -> float:
        """The longest open period that is believed; a deadline further ahead is corrupt."""
        return max(300.0, self.reset_timeout)

    @property
    def probe_timeout(self) -> float:
        """How long a probe may hold its slot: `reset_timeout` within the lease's range."""
        return min(max(self.reset_timeout, _MIN_PROBE_TIMEOUT), _MAX_PROBE_TIMEOUT)


def _check_name(name: object) -> None:
    allowed = f"must be 1 to {_MAX_NAME_BYTES} bytes of UTF-8 without control characters"
    if not isinstance(name, str) or not name.isprintable():
        raise ConfigError("name", name, allowed)
    # Printable text holds no lone surrogates, so it encodes.
    if not 1 <= len(name.encode()) <= _MAX_NAME_BYTES:
        raise ConfigError("name", name, allowed)


def _check_failure_threshold(value: object) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or not 1 <= value <= _MAX_FAILURE_THRESHOLD:  # type: ignore[operator]
        allowed = f"must be an int from 1 to {_MAX_FAILURE_THRESHOLD}"
        raise ConfigError("failure_threshold", value, allowed)


def _check_reset_timeout(value: object) -> None:
    allowed = f"must be seconds from {_MIN_RESET_TIMEOUT} to {_MAX_RESET_TIMEOUT:.0f} (30 days)"
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError("reset_timeout", value, allowed)
    if not _MIN_RESET_TIMEOUT <= value <= _MAX_RESET_TIMEOUT:
        raise ConfigError("reset_timeout", value, allowed)
