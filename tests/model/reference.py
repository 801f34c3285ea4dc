"""A slow, obvious breaker: what the native one is compared with. One thread, plain attributes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

COUNT_WINDOW = 8
MINIMUM_CALLS = 4
MAX_RESET_TIMEOUT = 35.0
MONITOR_INTERVAL = 1.0


@dataclass(frozen=True)
class Rules:
    """What can be configured. Times in seconds."""

    failure_threshold: int = 3
    reset_timeout: float = 10.0
    success_threshold: int = 1
    half_open_max: int = 1
    lost_probe_fails: bool = False
    backoff_factor: float = 1.0
    failure_rate: float | None = None
    lump_interval: float = 0.0
    trips_at_every: int | None = None
    """The user's own rule: open at each failure whose number is a multiple of this."""
    max_in_flight: int | None = None
    enforce: float = 1.0
    has_probe: bool = False


@dataclass(eq=False)
class Policy:
    """Rules that were adopted, and the window in which their calls are recorded."""

    rules: Rules
    window: deque[bool] | None = None


@dataclass(eq=False)
class Call:
    """One admitted call. Compared by identity: no two calls are the same."""

    kind: str
    policy: Policy
    is_in_flight: bool = False


@dataclass
class ReferenceBreaker:
    """`now` is an argument, as in the core."""

    rules: Rules
    state: str = "closed"
    generation: int = 0
    failures: int = 0
    until: float = 0.0
    """The end of the open period, of the lease, or of a state set by hand."""
    step: int = 0
    successes: int = 0
    neutral_in_a_row: int = 0
    current: list[Call] = field(default_factory=list)
    """The calls of this era that run: verdicts of all others are stale."""
    in_flight: int = 0
    last_incident: float = -math.inf
    totals: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("failure", "neutral", "stale", "rejected", "unenforced"), 0
        )
    )
    events: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.window: deque[bool] = deque(maxlen=COUNT_WINDOW)
        self.policy = self._adopt(self.rules, None)

    # --- rules ----------------------------------------------------------------------------------

    def configure(self, rules: Rules) -> None:
        """Calls that begin from now on go by these rules."""
        if rules != self.rules:
            self.policy = self._adopt(rules, self.policy)
            self.rules = rules
            self._tell(self.state, "reconfigured")

    def _adopt(self, rules: Rules, before: Policy | None) -> Policy:
        policy = Policy(rules)
        counts = (rules.failure_rate, rules.trips_at_every, rules.max_in_flight)
        if counts == (None, None, None):
            return policy
        policy.window = self.window  # all are of one size
        if before is None or before.window is None:
            self.window.clear()  # what it held is old
        return policy

    # --- calls ----------------------------------------------------------------------------------

    def admit(self, now: float, *, as_prober: bool = False) -> Call | None:
        """A call, or None if it is rejected."""
        most = self.rules.max_in_flight
        if self.state == "closed" and most is not None and self.in_flight >= most:
            self._open(now, "custom")
        call = self._admit(now, as_prober=as_prober)
        if call is None:
            is_forced = self.state == "forced_open" and now < self.until
            if is_forced or as_prober or self.rules.enforce >= 1:
                self.totals["rejected"] += 1
                return None
            self.totals["unenforced"] += 1
            call = Call("unrecorded", self.policy)
        call.is_in_flight = most is not None
        self.in_flight += call.is_in_flight
        return call

    def is_probe_due(self, now: float) -> bool:
        """Would the prober be admitted?"""
        if not self.rules.has_probe:
            return False
        if self.state in ("open", "forced_open"):
            return now >= self.until
        if self.state != "half_open":
            return False
        return self._has_room() or now >= self.until

    def _admit(self, now: float, *, as_prober: bool) -> Call | None:
        may_probe = as_prober or not self.rules.has_probe
        if self.state in ("open", "forced_open"):
            if now < self.until or not may_probe:
                return None
            self._enter("half_open", "timeout")
            self.successes = self.neutral_in_a_row = 0
        elif self.state == "disabled" and now >= self.until:
            self._close("timeout")
        if self.state == "half_open":
            return self._admit_probe(now, may_probe=may_probe)
        call = Call("unrecorded" if self.state == "disabled" else "normal", self.policy)
        self.current.append(call)
        return call

    def _has_room(self) -> bool:
        running, rules = len(self.current), self.rules
        free = running < rules.half_open_max
        return running == 0 or (free and running + self.successes < rules.success_threshold)

    def _admit_probe(self, now: float, *, may_probe: bool) -> Call | None:
        has_room = self._has_room()
        if not has_room and now < self.until:
            return None
        if not has_room and self.rules.lost_probe_fails:
            self.step += 1
            self._open(now, "probe_lost")
            return None
        if not may_probe:
            return None
        if not has_room:
            self._enter("half_open", "probe_lost")
        probe = Call("probe", self.policy)
        self.current.append(probe)
        self.until = now + self.rules.reset_timeout
        return probe

    def settle(self, call: Call, verdict: str, now: float) -> None:
        """What the verdict of an admitted call changes; nothing if it is of an older era."""
        self.in_flight = max(0, self.in_flight - call.is_in_flight)
        if call.kind == "unrecorded":
            return
        if verdict != "success":
            self.totals[verdict] += 1
        if call not in self.current:
            self.totals["stale"] += 1
            return
        self.current.remove(call)
        if call.kind == "probe":
            self._settle_probe(call, verdict, now)
        else:
            self._settle_normal(call, verdict, now)

    def _settle_normal(self, call: Call, verdict: str, now: float) -> None:
        rules, generation = call.policy.rules, self.generation
        if verdict == "failure" and not self._is_lumped(rules, now):
            self.failures += 1
            broken = self._record(call.policy, failed=True)
            if self.failures >= rules.failure_threshold:
                self._open(now, "consecutive_failures", rules)
            elif broken:
                self._open(now, "failure_rate", rules)
        elif verdict == "success":
            self.failures = 0
            self._record(call.policy, failed=False)
        every = rules.trips_at_every
        asked = verdict == "failure" and every is not None and self.generation == generation
        if asked and self.totals["failure"] % every == 0:
            self._open(now, "custom", rules)

    def _is_lumped(self, rules: Rules, now: float) -> bool:
        if rules.lump_interval == 0:
            return False
        lumped = now - self.last_incident < rules.lump_interval
        if not lumped:
            self.last_incident = now
        return lumped

    def _record(self, policy: Policy, *, failed: bool) -> bool:
        """Whether the rate is reached."""
        window, rate = policy.window, policy.rules.failure_rate
        if window is None:
            return False
        window.append(failed)
        enough = rate is not None and len(window) >= MINIMUM_CALLS
        return failed and enough and sum(window) >= math.ceil(rate * len(window))

    def _settle_probe(self, call: Call, verdict: str, now: float) -> None:
        rules = call.policy.rules
        if call.policy.window is not None:
            call.policy.window.clear()
        if verdict == "success":
            self.successes += 1
            self.neutral_in_a_row = 0
            if self.successes >= rules.success_threshold:
                self._close("probe_succeeded")
        elif verdict == "failure":
            self.failures += 1
            self.step += 1
            self._open(now, "probe_failed", rules)
        else:
            self.neutral_in_a_row += 1
            if self.neutral_in_a_row >= rules.success_threshold + 2:
                self._open(now, "inconclusive", rules)

    # --- by hand --------------------------------------------------------------------------------

    def trip(self, now: float) -> None:
        if self.state not in ("forced_open", "disabled"):
            self._enter("open", "manual")
            self.until = now + self.rules.reset_timeout

    def reset(self) -> None:
        self._close("reset")

    def force_open(self, until: float) -> None:
        self._enter("forced_open", "manual")
        self.until = until

    def disable(self, until: float) -> None:
        self._enter("disabled", "manual")
        self.until = until

    def auto(self, now: float) -> None:
        if self.state == "forced_open":
            self._enter("open", "manual")
            self.until = now
        elif self.state == "disabled":
            self._close("manual")

    def fork(self) -> None:
        """In a child nobody holds a probe, and no call of the parent runs."""
        self.in_flight = 0
        if self.state == "half_open":
            self.current.clear()
            self.generation += 1

    # --- transitions ----------------------------------------------------------------------------

    def _open(self, now: float, reason: str, rules: Rules | None = None) -> None:
        rules = rules or self.rules
        self._enter("open", reason)
        wait = rules.reset_timeout * rules.backoff_factor**self.step
        self.until = now + min(wait, MAX_RESET_TIMEOUT)

    def _close(self, reason: str) -> None:
        if self.policy.window is not None:
            self.policy.window.clear()
        self._enter("closed", reason)
        self.failures = self.step = 0

    def _enter(self, state: str, reason: str) -> None:
        self._tell(state, reason)
        self.state = state
        self.generation += 1
        self.current.clear()

    def _tell(self, state: str, reason: str) -> None:
        self.events.append((self.state, state, reason, self.rules.enforce <= 0))

    # --- what is seen ---------------------------------------------------------------------------

    def shown_state(self, now: float) -> str:
        """What a call would meet."""
        state = self._would_be(now)
        in_shadow = self.rules.enforce <= 0 and state not in ("forced_open", "disabled")
        return "shadow" if in_shadow else state

    def _would_be(self, now: float) -> str:
        if self.state in ("open", "forced_open") and now >= self.until:
            return self.state if self.rules.has_probe else "half_open"
        return "closed" if self.state == "disabled" and now >= self.until else self.state

    def retry_after(self, now: float) -> float | None:
        """Where it is open; None elsewhere."""
        if self.state not in ("open", "forced_open"):
            return None
        if self.rules.enforce <= 0 and self.state != "forced_open":
            return 0.0
        left = self.until - now
        if left <= 0:
            return MONITOR_INTERVAL if self.rules.has_probe else 0.0
        return left if left < math.inf else MAX_RESET_TIMEOUT
