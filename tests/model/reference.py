"""A slow, obvious breaker: what the native one is compared with. One thread, plain attributes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Call:
    """One admitted call. Compared by identity: no two calls are the same."""

    kind: str


@dataclass
class ReferenceBreaker:
    """Times in seconds; `now` is an argument, as in the core."""

    failure_threshold: int
    reset_timeout: float
    success_threshold: int = 1
    half_open_max: int = 1
    lost_probe_fails: bool = False
    backoff_factor: float = 1.0
    max_reset_timeout: float = 300.0
    state: str = "closed"
    failures: int = 0
    until: float = 0.0
    """The end of the open period, of the lease, or of a state set by hand."""
    step: int = 0
    successes: int = 0
    neutral_in_a_row: int = 0
    current: list[Call] = field(default_factory=list)
    """The calls of this era that run: verdicts of all others are stale."""

    def admit(self, now: float) -> Call | None:
        """A call, or None if it is rejected."""
        self._let_time_pass(now)
        if self.state in ("open", "forced_open"):
            return None
        if self.state == "half_open":
            return self._admit_probe(now)
        call = Call("unrecorded" if self.state == "disabled" else "normal")
        self.current.append(call)
        return call

    def _let_time_pass(self, now: float) -> None:
        if now < self.until:
            return
        if self.state in ("open", "forced_open"):
            self._enter("half_open")
            self.successes = self.neutral_in_a_row = 0
        elif self.state == "disabled":
            self.reset()

    def _admit_probe(self, now: float) -> Call | None:
        running = len(self.current)
        room = running < self.half_open_max and running + self.successes < self.success_threshold
        if not room:
            if now < self.until:
                return None
            if self.lost_probe_fails:
                self.step += 1
                self._open(now)
                return None
            self.current.clear()
        probe = Call("probe")
        self.current.append(probe)
        self.until = now + self.reset_timeout
        return probe

    def settle(self, call: Call, verdict: str, now: float) -> None:
        """What the verdict of an admitted call changes; nothing if it is of an older era."""
        if call not in self.current:
            return
        self.current.remove(call)
        if call.kind == "probe":
            self._settle_probe(verdict, now)
        elif call.kind == "normal":
            self._settle_normal(verdict, now)

    def _settle_normal(self, verdict: str, now: float) -> None:
        if verdict == "success":
            self.failures = 0
        elif verdict == "failure":
            self.failures += 1
            if self.failures >= self.failure_threshold:
                self._open(now)

    def _settle_probe(self, verdict: str, now: float) -> None:
        if verdict == "success":
            self.successes += 1
            self.neutral_in_a_row = 0
            if self.successes >= self.success_threshold:
                self.reset()
        elif verdict == "failure":
            self.failures += 1
            self.step += 1
            self._open(now)
        else:
            self.neutral_in_a_row += 1
            if self.neutral_in_a_row >= self.success_threshold + 2:
                self._open(now)

    def trip(self, now: float) -> None:
        if self.state not in ("forced_open", "disabled"):
            self._enter("open")
            self.until = now + self.reset_timeout

    def reset(self) -> None:
        self._enter("closed")
        self.failures = self.step = 0

    def force_open(self, until: float) -> None:
        self._enter("forced_open")
        self.until = until

    def disable(self, until: float) -> None:
        self._enter("disabled")
        self.until = until

    def auto(self, now: float) -> None:
        if self.state == "forced_open":
            self._enter("open")
            self.until = now
        elif self.state == "disabled":
            self.reset()

    def fork(self) -> None:
        """In a child nobody holds a probe."""
        if self.state == "half_open":
            self.current.clear()

    def _open(self, now: float) -> None:
        self._enter("open")
        wait = self.reset_timeout * self.backoff_factor**self.step
        self.until = now + min(wait, self.max_reset_timeout)

    def _enter(self, state: str) -> None:
        self.state = state
        self.current.clear()

    def shown_state(self, now: float) -> str:
        """What a call would meet."""
        if self.state in ("open", "forced_open") and now >= self.until:
            return "half_open"
        return "closed" if self.state == "disabled" and now >= self.until else self.state
