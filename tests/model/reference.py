"""A slow, obvious breaker: what the native one is compared with. One thread, plain attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

STALE = "stale"


@dataclass(eq=False)
class Call:
    """One admitted call. Compared by identity: no two calls are the same."""

    probe: bool = False


@dataclass
class ReferenceBreaker:
    """Times in seconds; `now` is an argument, as in the core."""

    failure_threshold: int
    reset_timeout: float
    state: str = "closed"
    failures: int = 0
    open_until: float = 0.0
    probe: Call | None = None
    lease_until: float = 0.0
    neutral_probes: int = 0
    era: set[int] = field(default_factory=set)

    def admit(self, now: float) -> Call | None:
        """A call, or None if it is rejected."""
        if self.state == "closed":
            call = Call()
            self.era.add(id(call))
            return call
        if self.state == "open":
            if now < self.open_until:
                return None
            self.state, self.neutral_probes = "half_open", 0
        elif self.probe is not None and now < self.lease_until:
            return None
        self.probe = Call(probe=True)
        self.lease_until = now + self.reset_timeout
        return self.probe

    def settle(self, call: Call, verdict: str, now: float) -> None:
        """What the verdict of an admitted call changes; nothing if it is of an older era."""
        if call.probe:
            if self.probe is call:
                self._settle_probe(verdict, now)
        elif id(call) in self.era:
            self._settle_closed(verdict, now)

    def _settle_closed(self, verdict: str, now: float) -> None:
        if verdict == "success":
            self.failures = 0
        elif verdict == "failure":
            self.failures += 1
            if self.failures >= self.failure_threshold:
                self._open(now)

    def _settle_probe(self, verdict: str, now: float) -> None:
        self.probe = None
        if verdict == "success":
            self.reset()
        elif verdict == "failure":
            self.failures += 1
            self._open(now)
        else:
            self.neutral_probes += 1
            if self.neutral_probes >= 3:
                self._open(now)

    def trip(self, now: float) -> None:
        self._open(now)

    def reset(self) -> None:
        self.state, self.failures, self.probe = "closed", 0, None
        self.era.clear()

    def _open(self, now: float) -> None:
        self.state, self.probe = "open", None
        self.open_until = now + self.reset_timeout
        self.era.clear()

    def shown_state(self, now: float) -> str:
        due = self.state == "open" and now >= self.open_until
        return "half_open" if due else self.state
