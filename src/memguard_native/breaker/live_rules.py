"""The rules that a breaker goes by now, and how they change: here, or in other processes.

The native core goes by a policy; here are the `BreakerConfig` that users see, the policies that
there were, and what is published to the processes that share the breaker, or was by them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from memguard_native import _core
from memguard_native.breaker.config import BreakerConfig
from memguard_native.breaker.host import Place
from memguard_native.breaker.policy import policy_of
from memguard_native.errors import ConfigError, SegmentUnavailableError

logger = logging.getLogger("memguard_native.breaker")


class LiveRules:
    """The rules of one breaker. `core` is set by the breaker, which is made with `policy`.

    `on_change` is called when others apply. No method is for the path of a call.
    """

    core: _core.Breaker

    def __init__(
        self, config: BreakerConfig, place: Place | None, on_change: Callable[[], None]
    ) -> None:
        self.config = config
        self.enforce_by_auto = config.enforce
        self.place = place
        self.policy = policy_of(config)
        self._on_change = on_change
        self._policies = [(config, config.enforce, self.policy)]  # each once: the core keeps all
        self._version = 0  # of what is published, as `config` has it

    def join(self) -> None:
        """Have the numbers of these rules apply in all processes: the newest count."""
        assert self.place is not None
        try:
            with self.place.segment.locked():
                before = self.core.publish()
        except SegmentUnavailableError as error:
            name = self.config.name
            logger.warning("circuit %r goes by the rules of other processes: %s", name, error)
            self.core.follow()
            return
        self._version = self.core.followed
        if before is not None:
            now = self.core.rules()
            changes = ", ".join(
                f"{name} {before[name]!r} -> {now[name]!r}"
                for name in now
                if before[name] != now[name]
            )
            logger.info(
                "circuit %r has other rules in all processes: %s", self.config.name, changes
            )
            self.core.announce_other_rules()

    def join_or_follow(self) -> None:
        """Go by what is published; where nothing is, publish."""
        self.core.follow()
        if self.core.followed == 0:
            self.join()

    def move(self, place: Place) -> None:
        """From now on the breaker lies there."""
        self.place = place
        self.core.move(**place.arguments())
        self.join()

    def follow(self) -> None:
        """See to it that `config` is what the core goes by: other processes may have published."""
        if self.place is None:
            return
        self.core.follow()
        version = self.core.followed
        if version == self._version:
            return
        self._version = version
        numbers = self.core.rules()
        self.enforce_by_auto = numbers.pop("enforce_by_auto")
        try:
            self.config = self.config.replace(**numbers)
        except ConfigError as error:  # none of ours has published that
            name = self.config.name
            logger.error("circuit %r: the shared rules are not shown: %s", name, error)
            return
        self._on_change()

    def change(self, changes: dict[str, Any], enforce_by_auto: float | None = None) -> None:
        """As `CircuitBreaker.configure`. `enforce_by_auto`: what `enforce` is after `auto()`."""
        with _changing, nullcontext() if self.place is None else self.place.segment.locked():
            self.follow()
            config = self.config.replace(**changes)
            by_auto = config.enforce if "enforce" in changes else self.enforce_by_auto
            if enforce_by_auto is not None:
                by_auto = enforce_by_auto
            if config.is_same_as(self.config) and by_auto == self.enforce_by_auto:
                return
            self._check_change(config)
            self.core.adopt(self._policy_for(config, by_auto))
            self.config, self.enforce_by_auto = config, by_auto
            if self.place is not None:
                self.core.publish()
                self._version = self.core.followed
            self._on_change()
        self.core.announce_other_rules()

    def _check_change(self, config: BreakerConfig) -> None:
        for name in ("name", "scope", "namespace"):
            before, now = getattr(self.config, name), getattr(config, name)
            if now != before:
                raise ConfigError(name, now, f"cannot change, it stays {before!r}")
        if self.config.call_timeout is None and config.call_timeout is not None:
            allowed = "cannot be set later: give the breaker one when it is made"
            raise ConfigError("call_timeout", config.call_timeout, allowed)

    def _policy_for(self, config: BreakerConfig, enforce_by_auto: float) -> _core.Policy:
        for rules, by_auto, had in self._policies:
            if rules.is_same_as(config) and by_auto == enforce_by_auto:
                return had
        policy = policy_of(config, enforce_by_auto)
        self._policies.append((config, enforce_by_auto, policy))
        return policy


# Around change(), of any breaker: rarely used, and nobody's call waits for it.
_changing = threading.RLock()


def renew_lock_after_fork() -> None:
    """In a forked child: a thread of the parent may have held it."""
    global _changing
    _changing = threading.RLock()
