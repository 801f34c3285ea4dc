"""Actions against growing memory: what to do now, decided purely, and the hands that do it.

`decide()` is a function of a policy and a situation. `Actions` asks it at every tick, does what it
says through `Effects`, and keeps a record of each action with what it gave back. The ladder: log,
callback, collect, trim (for a GPU: empty its cache), advise, recycle. One thread at a time; nothing
that an effect raises comes out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol

from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.alert import Alert
from memguard_native.memory.sample import BYTES_PER_MB

logger = logging.getLogger("memguard_native.memory")

SCHEMA = 1

# Of what is older two things are still asked for: when the last trim was and whether it was worth
# it, and what has been done once about the alert that stands.
_MOST_RECORDS = 100


class Step(StrEnum):
    """A step of the ladder."""

    log = "log"
    callback = "callback"
    collect = "collect"
    trim = "trim"
    empty_gpu_cache = "empty_gpu_cache"
    advise = "advise"
    recycle = "recycle"


_REPEATED = frozenset({Step.trim, Step.recycle})


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecord:
    """One action: what, when, why, and what came of it."""

    step: Step
    """What was done."""
    at: float
    """When: seconds since 1970-01-01 UTC, to show."""
    monotonic: float
    """The same on the clock that decisions are made by."""
    why: str
    """The reason, in words."""
    alert_sample: int
    """The number of the sample that raised the alert; names the alert."""
    dry_run: bool = False
    """It was not done, only decided."""
    before_bytes: int | None = None
    """Private memory before it (of a GPU: what the process holds of it); None: not measured."""
    after_bytes: int | None = None
    """And after it."""
    gave_back_bytes: int = 0
    """How much of the memory that the alert is about is gone: live memory for an alert on that,
    else private memory, or that of the GPU. Never < 0."""
    cost_seconds: float = 0.0
    """How long it took."""
    error: str | None = None
    """What it raised, if it did."""

    def to_dict(self) -> dict[str, object]:
        """All fields under their names, and "schema": 1. Ready for JSON."""
        return {"schema": SCHEMA, **asdict(self), "step": str(self.step)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a decision depends on."""

    now: float
    """Seconds on the monotonic clock."""
    alert: Alert
    """The alert that is raised, with its cause and the newest forecast."""
    raised_at: float
    """When it was raised, on the same clock."""
    idle_seconds: float | None = None
    """For how long nothing has been in flight; None: the load is not known."""
    has_torch: bool = False
    """Whether torch is imported and uses a GPU."""
    records: tuple[ActionRecord, ...] = ()
    """What was done so far in this process, oldest first."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step to take now, and why."""

    step: Step
    why: str


def decide(policy: ActionPolicy, situation: Situation) -> list[Decision]:
    """What to do now, in this order. Empty: nothing, or not yet."""
    done = {
        record.step for record in situation.records if record.alert_sample == situation.alert.sample
    }
    decisions = [
        Decision(step, "an alert was raised")
        for step, allowed in ((Step.log, policy.log), (Step.callback, policy.callback))
        if allowed and step not in done
    ]
    # The window rule cannot tell a leak from warm-up: it may speak, and nothing more.
    if situation.alert.rule == "window":
        return decisions
    cures = _cures(policy, situation, done)
    if cures and _may_interrupt(policy, situation):
        decisions += cures
        cures = []
    if policy.advise and Step.advise not in done:
        decisions.append(Decision(Step.advise, f"the cause is {situation.alert.cause}"))
    if policy.recycle:
        decisions += _recycling(policy, situation, is_waiting=bool(cures))
    return decisions


def _cures(policy: ActionPolicy, situation: Situation, done: set[Step]) -> list[Decision]:
    """What may give memory back, as soon as it does not disturb."""
    cause, on_gpu = situation.alert.cause, situation.alert.signal == "gpu"
    if on_gpu:
        if policy.empty_gpu_cache and situation.has_torch and Step.empty_gpu_cache not in done:
            return [Decision(Step.empty_gpu_cache, "torch may hold memory of the GPU that is free")]
        return []
    if cause in ("python-objects", "unknown"):
        if policy.collect and Step.collect not in done:
            return [Decision(Step.collect, f"the cause is {cause}: cycles may hold objects")]
        return []
    if cause == "fragmentation" and policy.trim:
        trims = [record for record in situation.records if record.step is Step.trim]
        if not any(_was_not_worth_it(policy, record) for record in trims) and (
            not trims or situation.now - trims[-1].monotonic >= policy.trim_interval
        ):
            return [Decision(Step.trim, "malloc holds memory that is free")]
    return []


def _was_not_worth_it(policy: ActionPolicy, trim: ActionRecord) -> bool:
    if trim.dry_run or not trim.before_bytes:
        return False
    return trim.gave_back_bytes < policy.trim_worth * trim.before_bytes


def _may_interrupt(policy: ActionPolicy, situation: Situation) -> bool:
    if situation.idle_seconds is None or situation.idle_seconds >= policy.idle_gap:
        return True
    return situation.now - situation.raised_at >= policy.idle_patience


def _recycling(policy: ActionPolicy, situation: Situation, *, is_waiting: bool) -> list[Decision]:
    asked = [
        record.monotonic
        for record in situation.records
        if record.step is Step.recycle and record.alert_sample == situation.alert.sample
    ]
    if asked and situation.now - asked[-1] < policy.recycle_after:
        return []
    forecast = situation.alert.forecast
    if forecast is not None and forecast.earliest_seconds <= policy.recycle_horizon:
        minutes = forecast.earliest_seconds / 60.0
        return [Decision(Step.recycle, f"the limit may be reached in {minutes:.0f} minutes")]
    if not is_waiting and situation.now - situation.raised_at >= policy.recycle_after:
        return [Decision(Step.recycle, "the alert outlives what was done against it")]
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNow:
    """What is measured before and after an action; None where it is not known."""

    private_bytes: int | None = None
    live_bytes: int | None = None
    gpu_bytes: int | None = None

    def of(self, signal: str) -> int | None:
        """The memory that an alert on this signal is about."""
        if signal == "gpu":
            return self.gpu_bytes
        return self.live_bytes if signal == "live" else self.private_bytes


class Effects(Protocol):
    """The hands. Each may raise; that is recorded."""

    def monotonic(self) -> float:
        """Seconds, to measure and decide by."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def memory(self) -> MemoryNow:
        """The memory of this process now."""
        ...

    def log(self, alert: Alert) -> None: ...
    def callback(self, alert: Alert) -> None: ...
    def collect(self) -> None: ...
    def trim(self) -> None: ...
    def empty_gpu_cache(self) -> None: ...
    def advise(self, alert: Alert) -> None: ...
    def recycle(self, alert: Alert) -> None: ...


_MEASURED = frozenset({Step.collect, Step.trim, Step.empty_gpu_cache})
# To tell is no action: it happens in a dry run too.
TELLING = frozenset({Step.log, Step.callback, Step.advise})


class Actions:
    """Does what `decide()` says, and remembers it.

    Args:
        policy: what may be done.
        effects: what does it.
        on_action: called with every `ActionRecord`, on the thread that calls `act()`.
    """

    def __init__(
        self,
        policy: ActionPolicy,
        effects: Effects,
        on_action: Callable[[ActionRecord], object] | None = None,
    ) -> None:
        self._policy = policy
        self._effects = effects
        self._on_action = on_action
        self._records: tuple[ActionRecord, ...] = ()
        self._has_failed_to_tell = False

    @property
    def records(self) -> tuple[ActionRecord, ...]:
        """What was done so far, oldest first; the newest 100, and before them the last trim and
        what was done once about the newest alert."""
        return self._records

    def act(
        self,
        alert: Alert,
        raised_at: float,
        *,
        idle_seconds: float | None = None,
        has_torch: bool = False,
    ) -> list[ActionRecord]:
        """Take the steps that are due for this alert; what was done, with what it gave back."""
        situation = Situation(
            now=self._effects.monotonic(),
            alert=alert,
            raised_at=raised_at,
            idle_seconds=idle_seconds,
            has_torch=has_torch,
            records=self._records,
        )
        return [self._take(one, alert) for one in decide(self._policy, situation)]

    def _take(self, decision: Decision, alert: Alert) -> ActionRecord:
        dry_run = self._policy.dry_run and decision.step not in TELLING
        measured = decision.step in _MEASURED and not dry_run
        monotonic, wall = self._effects.monotonic(), self._effects.wall()
        before = self._measure() if measured else MemoryNow()
        start = self._effects.monotonic()
        error = None if dry_run else self._do(decision.step, alert)
        cost = self._effects.monotonic() - start
        after = self._measure() if measured else MemoryNow()
        shown = "gpu" if alert.signal == "gpu" else "private"
        record = ActionRecord(
            step=decision.step,
            at=wall,
            monotonic=monotonic,
            why=decision.why,
            alert_sample=alert.sample,
            dry_run=dry_run,
            before_bytes=before.of(shown),
            after_bytes=after.of(shown),
            gave_back_bytes=_given_back(before.of(alert.signal), after.of(alert.signal)),
            cost_seconds=cost,
            error=error,
        )
        self._remember(record)
        if decision.step not in TELLING or error is not None:
            logger.info(_line(record), extra={"memory_action": record.to_dict()})
        self._tell(record)
        return record

    def _do(self, step: Step, alert: Alert) -> str | None:
        effects = self._effects
        hands: dict[Step, Callable[[], object]] = {
            Step.log: lambda: effects.log(alert),
            Step.callback: lambda: effects.callback(alert),
            Step.collect: effects.collect,
            Step.trim: effects.trim,
            Step.empty_gpu_cache: effects.empty_gpu_cache,
            Step.advise: lambda: effects.advise(alert),
            Step.recycle: lambda: effects.recycle(alert),
        }
        try:
            hands[step]()
        except Exception as error:  # noqa: BLE001 - no action may end the thread that judges
            return f"{type(error).__name__}: {error}"
        return None

    def _measure(self) -> MemoryNow:
        try:
            return self._effects.memory()
        except Exception:
            logger.exception("memory could not be measured around an action")
            return MemoryNow()

    def _remember(self, record: ActionRecord) -> None:
        kept = (*self._records, record)
        old, new = kept[:-_MOST_RECORDS], kept[-_MOST_RECORDS:]
        last_trim = next((one for one in reversed(kept) if one.step is Step.trim), None)
        told = (
            one
            for one in old
            if one is last_trim
            or (one.step not in _REPEATED and one.alert_sample == record.alert_sample)
        )
        self._records = (*told, *new)

    def _tell(self, record: ActionRecord) -> None:
        if self._on_action is None:
            return
        try:
            self._on_action(record)
        except Exception:
            if not self._has_failed_to_tell:
                self._has_failed_to_tell = True
                logger.exception("on_action raised; further errors of it are not logged")


def _given_back(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else max(0, before - after)


def was_deed(record: ActionRecord) -> bool:
    """Whether memory may have changed by it."""
    return record.step in _MEASURED and not record.dry_run


def clears_alert(record: ActionRecord, growth_bytes: float) -> bool:
    """Whether an action gave back so much of the growth that the alert is answered: half of it."""
    return growth_bytes > 0 and record.gave_back_bytes >= growth_bytes / 2


def _line(record: ActionRecord) -> str:
    text = f"memory action: {record.step}: {record.why}"
    if record.dry_run:
        return f"{text} (dry run)"
    if record.error is not None:
        return f"{text}; failed: {record.error}"
    if record.step in _MEASURED:
        gave_back = record.gave_back_bytes / BYTES_PER_MB
        return f"{text}; gave back {gave_back:.1f} MB in {record.cost_seconds * 1000:.0f} ms"
    return text
