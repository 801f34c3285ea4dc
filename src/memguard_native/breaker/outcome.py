"""What an outcome means for the breaker, where the user decides it.

The core judges by itself what needs no user: see `CircuitBreaker`. It calls the objects made here
on its cold path only, never while an exception is set and never between reading and changing its
state, so a user's function may use any breaker. What such a function raises is counted and logged
the first time, and the outcome is then judged as if there were no such function.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from memguard_native import _core
from memguard_native.breaker.config import BreakerConfig
from memguard_native.breaker.events import as_event
from memguard_native.breaker.trip_rules import Budget, PileUp, TripRule, When

logger = logging.getLogger("memguard_native.breaker")

_MAX_WHY = 160


class Verdict(IntEnum):
    """The numbers are those of the core."""

    success = 0
    failure = 1
    neutral = 2


class Predicate:
    """A user's function whose errors must not reach the guarded call."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self.errors = 0

    def __call__(self, *subjects: object, otherwise: Any = None) -> Any:
        """What the function answers; `otherwise` if it raises."""
        try:
            return self._function(*subjects)
        except Exception:
            self.errors += 1
            if self.errors == 1:
                logger.exception(
                    "%s raised; further errors of it are only counted, and it counts as absent",
                    self._name,
                )
            return otherwise


def classifier(config: BreakerConfig) -> Callable[[BaseException], Verdict] | None:
    """Judges exceptions by `ignore`, `failure_if` and `count_base_exceptions`; None: no need."""
    ignore = config.ignore if isinstance(config.ignore, tuple) else (config.ignore,)
    if not ignore and config.failure_if is None and not config.count_base_exceptions:
        return None
    types = tuple(item for item in ignore if isinstance(item, type))
    predicates = [Predicate("ignore", item) for item in ignore if not isinstance(item, type)]
    failure_if = None
    if config.failure_if is not None:
        failure_if = Predicate("failure_if", config.failure_if)

    def classify(error: BaseException) -> Verdict:
        if _is_cancellation(error) or isinstance(error, types):
            return Verdict.neutral
        if any(predicate(error) for predicate in predicates):
            return Verdict.neutral
        return Verdict.failure if failure_if is None else _ask(failure_if, error)

    return classify


def _ask(failure_if: Predicate, error: BaseException) -> Verdict:
    answer = failure_if(error, otherwise=True)
    if answer is None:
        return Verdict.neutral
    return Verdict.failure if answer else Verdict.success


def _is_cancellation(error: BaseException) -> bool:
    # Whoever raised it has imported asyncio; we need not.
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        return True
    return isinstance(error, GeneratorExit)


def result_classifier(config: BreakerConfig) -> Callable[[object], Verdict] | None:
    """Judges results by `failure_if_result`; None: every result is a success."""
    if config.failure_if_result is None:
        return None
    failed = Predicate("failure_if_result", config.failure_if_result)
    return lambda result: Verdict.failure if failed(result) else Verdict.success


def reopen_wait(config: BreakerConfig) -> Callable[[object], float | None] | None:
    """The seconds that the dependency asked for, by `reopen_after`."""
    return None if config.reopen_after is None else Predicate("reopen_after", config.reopen_after)


def backoff_wait(config: BreakerConfig) -> Callable[[int, object], float | None] | None:
    """The seconds to stay open, by `backoff`."""
    return None if config.backoff is None else Predicate("backoff", config.backoff)


def trip_hook(config: BreakerConfig, when: When) -> Callable[..., str | None] | None:
    """Asks the rules of `trip_if` that are asked at this moment; None: there is none."""
    asked = [
        Predicate("trip_if", _text_of(one))
        for one in config.trip_rules
        if not isinstance(one, PileUp) and one.when == when
    ]
    if not asked:
        return None

    def hook(core: _core.Breaker, outcome: object) -> str | None:
        for one in asked:
            why: str | None = one(core, config.name, outcome)
            if why:
                return why
        return None

    return hook


def _text_of(rule: TripRule | Budget) -> Callable[..., str | None]:
    """What the rule answers as a text, made where its errors are caught."""

    def why(*asked: Any) -> str | None:
        answer = rule.why(*asked)
        if answer is True:
            return "a rule of the user's"
        return str(answer)[:_MAX_WHY] if answer else None

    return why


def max_in_flight(config: BreakerConfig) -> int | None:
    """The lowest limit of the `pile_up` rules; None: there is none."""
    return min(
        (one.max_in_flight for one in config.trip_rules if isinstance(one, PileUp)), default=None
    )


def inline_listener(config: BreakerConfig) -> Callable[[tuple[Any, ...]], object] | None:
    """Takes the core's tuple to `on_event` at once; None: the event thread does."""
    if config.on_event is None or not config.inline_events:
        return None
    listener = Predicate("on_event", config.on_event)
    return lambda told: listener(as_event(told))


def fallback_function(config: BreakerConfig) -> Callable[..., object] | None:
    """What answers a rejected call: `fallback` itself, or a function that returns it."""
    fallback = config.fallback
    if fallback is None or callable(fallback):
        return fallback
    return lambda *args, **kwargs: fallback
