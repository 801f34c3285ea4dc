"""What a breaker can be told, validated at once. Pure: no threads, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, cast

from memguard_native.breaker.trip_rules import Asked, PileUp, Rule, TripRule, as_rules
from memguard_native.errors import ConfigError, is_finite_number

Ignorable = type[BaseException] | Callable[[BaseException], object]

_MAX_NAME_BYTES = 120
_MAX_FAILURE_THRESHOLD = 2**31 - 1
_MAX_SUCCESS_THRESHOLD = 31
_MAX_PROBES = 63
_MAX_COUNT_WINDOW = 10_000
_MAX_TIME_WINDOW = 86_400.0
_MINIMUM_CALLS = 20
_MIN_RESET_TIMEOUT = 0.001
_MAX_RESET_TIMEOUT = 30 * 24 * 3600.0
_MIN_PROBE_TIMEOUT = 0.016
_MAX_PROBE_TIMEOUT = 64_800.0
_LEAST_MAX_RESET_TIMEOUT = 300.0
_PROBE_EXPIRIES = ("retry", "failure")
_JITTER_MODES = ("spread", "full", "equal")
_MAX_REASON = 160
_SCOPES = ("local", "host")
_MAX_SHARED_BAD_CALLS = 128
_CALLABLES = ("probe", "backoff", "reopen_after", "failure_if", "failure_if_result", "on_event")


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """The rules of one breaker; see `CircuitBreaker` for their meaning.

    `probe_timeout`, `max_reset_timeout`, `minimum_calls`, `ignore` and `trip_if` are completed:
    they hold what applies.

    Raises ConfigError: a value of the wrong type or out of its range.
    """

    name: str
    failure_threshold: int | None = 5
    reset_timeout: float = 60.0
    failure_rate: float | None = None
    slow_rate: float | None = None
    slow_call_duration: float | None = None
    count_window: int = 100
    time_window: float | None = None
    minimum_calls: int | None = None
    count_calls: bool | None = None
    trip_if: Asked | Rule | tuple[Asked | Rule, ...] | None = ()
    lump_interval: float = 0.0
    success_threshold: int = 1
    half_open_max: int = 1
    probe_timeout: float | None = None
    probe_expiry: str = "retry"
    probe: Callable[[], object] | None = None
    monitor_interval: float = 1.0
    backoff_factor: float = 1.0
    max_reset_timeout: float | None = None
    jitter: float = 0.0
    jitter_mode: str = "spread"
    backoff: Callable[[int, Any], float | None] | None = None
    reopen_after: Callable[[Any], float | None] | None = None
    ignore: Ignorable | tuple[Ignorable, ...] = ()
    failure_if: Callable[[BaseException], bool | None] | None = None
    failure_if_result: Callable[[Any], object] | None = None
    count_base_exceptions: bool = False
    call_timeout: float | None = None
    fallback: object = None
    enforce: float = 1.0
    on_event: Callable[[Any], object] | None = None
    inline_events: bool = False
    scope: str = "local"
    namespace: str | None = None
    completed: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    """The arguments that were not given, and follow the others."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.failure_threshold is not None:
            _check_count("failure_threshold", self.failure_threshold, _MAX_FAILURE_THRESHOLD)
        _check_seconds("reset_timeout", self.reset_timeout, _MIN_RESET_TIMEOUT, _MAX_RESET_TIMEOUT)
        _check_count("success_threshold", self.success_threshold, _MAX_SUCCESS_THRESHOLD)
        _check_count("half_open_max", self.half_open_max, _MAX_PROBES)
        self._complete()
        self._check_rates()
        _check_choice("probe_expiry", self.probe_expiry, _PROBE_EXPIRIES)
        _check_choice("jitter_mode", self.jitter_mode, _JITTER_MODES)
        self._check_scope()
        if not is_finite_number(self.backoff_factor) or self.backoff_factor < 1:
            raise ConfigError("backoff_factor", self.backoff_factor, "must be a number >= 1")
        for name in ("jitter", "enforce"):
            value = getattr(self, name)
            if not is_finite_number(value) or not 0 <= value <= 1:
                raise ConfigError(name, value, "must be a number from 0 to 1")
        if self.lump_interval != 0:
            _check_seconds("lump_interval", self.lump_interval, 0.001, _MAX_RESET_TIMEOUT)
        _check_seconds("monitor_interval", self.monitor_interval, 0.01, 3600.0)
        for name in _CALLABLES:
            _check_callable(name, getattr(self, name))
        if self.count_calls is not None and not isinstance(self.count_calls, bool):
            raise ConfigError("count_calls", self.count_calls, "must be True, False or None")
        for item in self.ignore if isinstance(self.ignore, tuple) else ():
            _check_ignorable(item)
        for name in ("count_base_exceptions", "inline_events"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, getattr(self, name), "must be True or False")
        if self.call_timeout is not None:
            _check_seconds("call_timeout", self.call_timeout, _MIN_RESET_TIMEOUT, math.inf)

    def _check_rates(self) -> None:
        for name in ("failure_rate", "slow_rate"):
            value = getattr(self, name)
            if value is not None and not (is_finite_number(value) and 0 < value <= 1):
                raise ConfigError(name, value, "must be a share above 0 and up to 1, or None")
        if (self.slow_rate is None) != (self.slow_call_duration is None):
            allowed = "must be given together with slow_rate: what is a slow call?"
            raise ConfigError("slow_call_duration", self.slow_call_duration, allowed)
        if self.slow_call_duration is not None:
            _check_seconds("slow_call_duration", self.slow_call_duration, 0.001, _MAX_RESET_TIMEOUT)
        if self.time_window is not None:
            _check_seconds("time_window", self.time_window, 1.0, _MAX_TIME_WINDOW)
        _check_count("minimum_calls", self.minimum_calls, self.count_window)

    def _check_scope(self) -> None:
        _check_choice("scope", self.scope, _SCOPES)
        if self.namespace is not None and not isinstance(self.namespace, str):
            raise ConfigError("namespace", self.namespace, "must be a text or None")
        if self.scope == "local":
            return
        for rate in (self.failure_rate, self.slow_rate):
            if rate is not None and rate * self.count_window > _MAX_SHARED_BAD_CALLS:
                allowed = f"must be at most {_MAX_SHARED_BAD_CALLS} / rate in scope 'host'"
                raise ConfigError("count_window", self.count_window, allowed)

    def _complete(self) -> None:
        complete = object.__setattr__  # frozen for everybody else
        _check_count("count_window", self.count_window, _MAX_COUNT_WINDOW)
        for name, value in self._completions().items():
            if getattr(self, name) is None:
                complete(self, name, value)
                complete(self, "completed", self.completed | {name})
        _check_seconds("probe_timeout", self.probe_timeout, _MIN_PROBE_TIMEOUT, _MAX_PROBE_TIMEOUT)
        _check_seconds(
            "max_reset_timeout", self.max_reset_timeout, self.reset_timeout, _MAX_RESET_TIMEOUT
        )
        if not isinstance(self.ignore, tuple):
            ignore = tuple(self.ignore) if isinstance(self.ignore, list) else (self.ignore,)
            complete(self, "ignore", ignore)
        complete(self, "trip_if", as_rules(self.trip_if))

    @property
    def trip_rules(self) -> tuple[Rule, ...]:
        """The rules of `trip_if`."""
        return cast("tuple[Rule, ...]", self.trip_if)

    @property
    def counts_calls(self) -> bool:
        """Whether successes are counted: as `count_calls` says, else where a rule needs it."""
        if self.count_calls is not None:
            return self.count_calls
        return bool(self.trip_if) or self.failure_rate is not None or self.slow_rate is not None

    def replace(self, **changes: Any) -> BreakerConfig:
        """The same rules with these changes; what was completed from them is completed anew.

        Raises ConfigError: no such argument, or a value that is not allowed.
        """
        given = self.given()
        for name, value in changes.items():
            if name not in given:
                allowed = "is no rule of a breaker; there are " + ", ".join(sorted(given))
                raise ConfigError(name, value, allowed)
        return BreakerConfig(**given | changes)

    def given(self) -> dict[str, Any]:
        """The arguments that make this configuration again."""
        return {
            one.name: None if one.name in self.completed else getattr(self, one.name)
            for one in fields(self)
            if one.init
        }

    def is_same_as(self, other: BreakerConfig) -> bool:
        """Whether these are the same rules: numbers and texts equal, all else the same objects."""
        names = (one.name for one in fields(self) if one.init)
        return all(_is_same(getattr(self, name), getattr(other, name)) for name in names)

    def _completions(self) -> dict[str, float]:
        """What stands where nothing was given, by the other rules."""
        clipped = min(max(self.reset_timeout, _MIN_PROBE_TIMEOUT), _MAX_PROBE_TIMEOUT)
        return {
            "minimum_calls": min(_MINIMUM_CALLS, self.count_window),
            "probe_timeout": clipped,
            "max_reset_timeout": max(_LEAST_MAX_RESET_TIMEOUT, self.reset_timeout),
        }

    @classmethod
    def recommended(cls, name: str) -> BreakerConfig:
        """Finagle's rule: 5 failures in a row, or a fifth of all calls within 30 seconds.

        Waits double with each failed probe, up to 5 minutes, and are drawn between half and one
        and a half of that, so that clients do not come back together.
        """
        return cls(
            name=name,
            failure_rate=0.2,
            time_window=30.0,
            backoff_factor=2.0,
            max_reset_timeout=300.0,
            jitter=0.5,
        )


def _is_same(one: object, other: object) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, (int, float, str, TripRule, PileUp)) and one == other


def _check_name(name: object) -> None:
    allowed = f"must be 1 to {_MAX_NAME_BYTES} bytes of UTF-8 without control characters"
    if not isinstance(name, str) or not name.isprintable():
        raise ConfigError("name", name, allowed)
    # Printable text holds no lone surrogates, so it encodes.
    if not 1 <= len(name.encode()) <= _MAX_NAME_BYTES:
        raise ConfigError("name", name, allowed)


def _check_count(field: str, value: Any, most: int) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or not 1 <= value <= most:
        or_none = " or None" if field == "failure_threshold" else ""
        raise ConfigError(field, value, f"must be an int from 1 to {most}{or_none}")


def _check_seconds(field: str, value: Any, least: float, most: float) -> None:
    if not is_finite_number(value) or not least <= value <= most:
        longest = "" if math.isinf(most) else f" to {most:.0f}"
        raise ConfigError(field, value, f"must be seconds from {least:g}{longest}")


def check_period(field: str, value: Any) -> None:
    """Check the seconds that a state set by hand lasts; None is allowed.

    Raises ConfigError.
    """
    if value is not None:
        _check_seconds(field, value, _MIN_RESET_TIMEOUT, _MAX_RESET_TIMEOUT)


def checked_reason(reason: Any) -> str | None:
    """The reason of something done by hand, clipped. Raises ConfigError."""
    if reason is not None and not isinstance(reason, str):
        raise ConfigError("reason", reason, "must be a text or None")
    return reason if reason is None else reason[:_MAX_REASON]


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(field, value, f"must be one of {', '.join(map(repr, choices))}")


def _check_callable(field: str, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(field, value, "must be callable or None")


def _check_ignorable(item: object) -> None:
    is_type = isinstance(item, type) and issubclass(item, BaseException)
    if not is_type and (isinstance(item, type) or not callable(item)):
        raise ConfigError("ignore", item, "must be exception types or functions of an exception")
