"""`RecyclePolicy`: when a worker is replaced, as the user says it, and as it is meant in bytes.

Pure and validated at once. Shares ("80%") are resolved where the limits of the system are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from memguard_native.errors import ConfigError, is_finite_number
from memguard_native.memory.limits import parse_size

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_DEFAULT_GROUP_SHARE = "90%"
_SIZES = 'must be bytes, "512MiB", "80%" or a share such as 0.8, or None'
_NO_LIMIT = (
    'must be a size such as "512MiB", or MEMGUARD_LIMIT be set: no limit is known that it could be '
    "a share of"
)
_NO_GROUP = (
    'must be a size such as "8GiB": the control group has no limit that it could be a share of'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecyclePolicy:
    """When a worker is replaced; None: never for that.

    Raises ConfigError: a value of the wrong type or out of its range.
    """

    max_requests: int | None = 1000
    """Requests that it answers; those to health routes do not count."""
    jitter: float = 0.1
    """Each worker draws its own limits, up to this share above: they are not reached together."""
    max_inputs: int | None = None
    """Inputs that the application reports by `worker.count`."""
    max_tokens: int | None = None
    """Tokens that it reports."""
    max_lifetime: float | None = None
    """Seconds since it was ready."""
    max_memory: int | float | str | None = None
    """Its own memory: bytes, "512MiB", or "80%" of the limit divided by the number of workers."""
    max_group_memory: int | float | str | None = _DEFAULT_GROUP_SHARE
    """Memory of all together that cannot be taken back; a share of the control group's limit. By
    default nothing where there is no control group with a limit."""
    hard_memory: int | float | str | None = None
    """What no worker may ever have: it takes no more requests, and is killed after two seconds."""
    on_leak: bool = True
    """Replace it when its memory monitor has found a leak."""
    forecast_horizon: float | None = 3600.0
    """Replace it when its memory may reach the limit within so many seconds."""
    confirm_samples: int = 3
    """Samples in a row that memory has to be too much in."""
    hysteresis: float = 0.9
    """Below this share of the limit it is all right again."""
    sample_interval: float = 10.0
    """Seconds between two samples."""
    trim_first: bool = True
    """Collect garbage and have malloc give free memory back before it is replaced for memory."""
    max_concurrent: int = 1
    """Workers that are replaced at the same time."""
    min_interval: float = 1.0
    """Seconds between the starts of two replacements."""
    min_lifetime: float = 5.0
    """Seconds since it was ready in which it is not replaced; the ceiling excepted."""
    max_memory_recycles_per_hour: int = 12
    """More replacements for memory are only told: they do not help."""
    dry_run: bool = False
    """Decide and tell, and replace nobody."""

    def __post_init__(self) -> None:
        for name, (check, allowed) in _CHECKS.items():
            value = getattr(self, name)
            if not check(value):
                raise ConfigError(name, value, allowed)
        for name in _MEMORY:
            _parsed(name, getattr(self, name))
        # A size and a share can be compared where the limit is known: see `resolved()`.
        for soft, hard in zip(
            _parsed("max_memory", self.max_memory),
            _parsed("hard_memory", self.hard_memory),
            strict=True,
        ):
            if soft is not None and hard is not None and hard <= soft:
                allowed = f"must be above max_memory, which is {self.max_memory!r}"
                raise ConfigError("hard_memory", self.hard_memory, allowed)

    def resolved(
        self, *, workers: int, limit_bytes: int | None, cgroup_limit_bytes: int | None
    ) -> ResolvedPolicy:
        """The same in bytes.

        `limit_bytes` is what memory of the service runs into, `cgroup_limit_bytes` the limit of its
        control group; None: not known, or none.

        Raises ConfigError: a share of a limit that is not known; `hard_memory` <= `max_memory`.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("max_memory", "hard_memory"):
            values[name] = _bytes_of(name, values[name], limit_bytes, workers)
        group = self.max_group_memory
        if group == _DEFAULT_GROUP_SHARE and cgroup_limit_bytes is None:
            group = None
        values["max_group_memory"] = _bytes_of("max_group_memory", group, cgroup_limit_bytes, 1)
        soft, hard = values["max_memory"], values["hard_memory"]
        if soft is not None and hard is not None and hard <= soft:
            allowed = f"must be above max_memory, which is {soft} bytes a worker"
            raise ConfigError("hard_memory", self.hard_memory, allowed)
        return ResolvedPolicy(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPolicy:
    """A `RecyclePolicy` with its memory in bytes; see there."""

    max_requests: int | None
    jitter: float
    max_inputs: int | None
    max_tokens: int | None
    max_lifetime: float | None
    max_memory: int | None
    max_group_memory: int | None
    hard_memory: int | None
    on_leak: bool
    forecast_horizon: float | None
    confirm_samples: int
    hysteresis: float
    sample_interval: float
    trim_first: bool
    max_concurrent: int
    min_interval: float
    min_lifetime: float
    max_memory_recycles_per_hour: int
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResolvedPolicy:
        """What `to_dict()` gave."""
        return cls(**values)


def _parsed(name: str, value: object) -> tuple[int | None, float | None]:
    """Bytes, or a share; both None: no limit. Raises ConfigError."""
    if value is None:
        return None, None
    share = value
    if isinstance(value, str):
        found = _SHARE.fullmatch(value.strip())
        if found is None:
            return parse_size(value, field=name), None
        share = float(found[1]) / 100.0
    if isinstance(share, int) and not isinstance(share, bool) and share > 0:
        return share, None
    if isinstance(share, float) and 0.0 < share <= 1.0:
        return None, share
    raise ConfigError(name, value, _SIZES)


def _bytes_of(name: str, value: object, limit_bytes: int | None, parts: int) -> int | None:
    amount, share = _parsed(name, value)
    if share is None:
        return amount
    if limit_bytes is None:
        raise ConfigError(name, value, _NO_GROUP if name == "max_group_memory" else _NO_LIMIT)
    return int(share * limit_bytes / parts)


def _optional_count(value: object) -> bool:
    return value is None or _count(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _between(least: float, most: float) -> Callable[[object], bool]:
    return lambda value: is_finite_number(value) and least <= value <= most  # type: ignore[operator]


def _seconds(value: object) -> bool:
    return is_finite_number(value) and value > 0  # type: ignore[operator]


def _optional_seconds(value: object) -> bool:
    return value is None or _seconds(value)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


_MEMORY = ("max_memory", "max_group_memory", "hard_memory")
_OPTIONAL_COUNT = (_optional_count, "must be a whole number >= 1 or None")
_OPTIONAL_SECONDS = (_optional_seconds, "must be a number of seconds > 0 or None")
_FLAG = (_flag, "must be True or False")
_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "max_requests": _OPTIONAL_COUNT,
    "jitter": (_between(0.0, 10.0), "must be a number from 0 to 10"),
    "max_inputs": _OPTIONAL_COUNT,
    "max_tokens": _OPTIONAL_COUNT,
    "max_lifetime": _OPTIONAL_SECONDS,
    "on_leak": _FLAG,
    "forecast_horizon": _OPTIONAL_SECONDS,
    "confirm_samples": (_count, "must be a whole number >= 1"),
    "hysteresis": (_between(0.01, 1.0), "must be a share from 0.01 to 1"),
    "sample_interval": (_seconds, "must be a number of seconds > 0"),
    "trim_first": _FLAG,
    "max_concurrent": (_count, "must be a whole number >= 1"),
    "min_interval": (_between(0.0, 86400.0), "must be seconds from 0 to a day"),
    "min_lifetime": (_between(0.0, 86400.0), "must be seconds from 0 to a day"),
    "max_memory_recycles_per_hour": (_count, "must be a whole number >= 1"),
    "dry_run": _FLAG,
}
