"""Rules of the user's that open a circuit: `TripRule`, and two ready-made ones.

A rule is asked on the thread of a call, off the healthy path, with no lock held; it may use any
breaker. A rule that raises is logged the first time and says no.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from memguard_native import _core
from memguard_native.breaker.snapshot import BreakerSnapshot
from memguard_native.errors import ConfigError, is_finite_number

When = Literal["failure", "verdict", "admission"]
Asked = Callable[[BreakerSnapshot], object]

_MAX_IN_FLIGHT = 1_000_000
_MAX_PER_SECONDS = 30 * 24 * 3600.0
_BUCKETS = 16


@dataclass(frozen=True)
class TripRule:
    """Opens a closed circuit when `ask(snapshot)` says so.

    Args:
        ask: returns why, as a text, or True; or nothing true: the circuit stays closed.
        when: it is asked after each "failure", after each "verdict", or before each "admission".
            The last two cost a Python call per guarded call.

    Raises ConfigError: `ask` is not callable, or `when` is another word.
    """

    ask: Asked
    when: When = "failure"

    def __post_init__(self) -> None:
        if not callable(self.ask):
            raise ConfigError("trip_if", self.ask, "must be functions of a snapshot, or TripRules")
        if self.when not in get_args(When):
            allowed = ", ".join(map(repr, get_args(When)))
            raise ConfigError("when", self.when, f"must be one of {allowed}")

    def why(self, core: _core.Breaker, name: str, outcome: object) -> object:
        """What is true where the circuit is to open. `outcome`: result or exception of the call."""
        return self.ask(BreakerSnapshot.of(name, core.snapshot()))


@dataclass(frozen=True)
class PileUp:
    """See `pile_up`: the core itself counts and judges."""

    max_in_flight: int

    def __post_init__(self) -> None:
        given = self.max_in_flight
        is_int = isinstance(given, int) and not isinstance(given, bool)
        if not is_int or not 1 <= given <= _MAX_IN_FLIGHT:
            raise ConfigError("max_in_flight", given, f"must be an int from 1 to {_MAX_IN_FLIGHT}")


class Budget:
    """See `budget`."""

    when: When = "verdict"

    def __init__(
        self, cost: float, per_seconds: float, cost_of: Callable[[Any], float] | None
    ) -> None:
        if not is_finite_number(cost) or cost <= 0:
            raise ConfigError("cost", cost, "must be a number above 0")
        if not is_finite_number(per_seconds) or not 1 <= per_seconds <= _MAX_PER_SECONDS:
            raise ConfigError("per_seconds", per_seconds, "must be seconds from 1 to 30 days")
        if cost_of is not None and not callable(cost_of):
            raise ConfigError("cost_of", cost_of, "must be a function of a result or None")
        self._arguments = (cost, per_seconds, cost_of)
        self._cost = cost
        self._per_seconds = per_seconds
        self._cost_of = cost_of
        self._spent: dict[int, float] = {}  # by sixteenth of the period
        # Never held while a user's function runs, but a signal handler may come in between.
        self._lock = threading.RLock()
        _budgets.add(self)

    def why(self, core: _core.Breaker, name: str, outcome: object) -> object:
        """Adds what the call cost; a text where that was too much."""
        del name
        cost = 1.0 if self._cost_of is None else float(self._cost_of(outcome))
        if not (is_finite_number(cost) and cost >= 0):
            raise ValueError(f"a cost must be a number from 0, got {cost!r}")
        now = int(core.now() * _BUCKETS / self._per_seconds)
        with self._lock:
            self._spent = {at: was for at, was in self._spent.items() if at > now - _BUCKETS}
            self._spent[now] = self._spent.get(now, 0.0) + cost
            spent = sum(self._spent.values())
            if spent <= self._cost:
                return None
            self._spent.clear()  # what opened the circuit is not to open it again
        return f"spent {spent:g} of {self._cost:g} in {self._per_seconds:g} s"

    def renew_lock_after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held it."""
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, self._arguments


Rule = TripRule | PileUp | Budget
_budgets: weakref.WeakSet[Budget] = weakref.WeakSet()


def pile_up(max_in_flight: int) -> PileUp:
    """Opens the circuit when a call comes while so many, from 1 to 1,000,000, still run.

    For dependencies that hang: nobody has failed yet, but nobody comes back. Counted natively.
    Raises ConfigError.
    """
    return PileUp(max_in_flight)


def budget(
    cost: float, per_seconds: float, *, cost_of: Callable[[Any], float] | None = None
) -> Budget:
    """Opens the circuit when calls cost more than `cost` within `per_seconds`, from 1 to 30 days.

    `cost_of(result or exception)` tells what a call cost, tokens or money; default 1 for each.
    The period slides in sixteenths. Raises ConfigError.
    """
    return Budget(cost, per_seconds, cost_of)


def as_rules(given: object) -> tuple[Rule, ...]:
    """The rules of `trip_if`: one or several of functions of a snapshot, and rules.

    Raises ConfigError.
    """
    items = given if isinstance(given, (tuple, list)) else () if given is None else (given,)
    return tuple(one if isinstance(one, Rule) else TripRule(cast("Asked", one)) for one in items)


def renew_locks_after_fork() -> None:
    """In a forked child."""
    for one in list(_budgets):
        one.renew_lock_after_fork()
