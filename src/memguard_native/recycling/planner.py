"""What the supervisor does next: which workers start, which drain, and what people are told.

Pure: time, workers and memory of the group are given in; nothing is read, nothing is done. The
supervisor asks at each turn of its loop, and has done what it was told before it asks again.

What always holds: a worker is drained when its replacement is ready, so never fewer than N are, but
for `retires_first`, which is told; and never are there more than N + `max_concurrent` processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from memguard_native.recycling.crash_budget import CrashBudget
from memguard_native.recycling.group_rule import GroupRule
from memguard_native.recycling.policy import ResolvedPolicy
from memguard_native.recycling.reasons import MEMORY_REASONS, Reason, comes_before

_HOUR = 3600.0
_STORM_PERIOD = 900.0
_STORM_PER_WORKER = 3
_AGAIN = 600.0
_ROOM = 1.1
_MIB = 2**20


class WorkerState(StrEnum):
    """Warming: it lives, and the application starts up."""

    starting = "starting"
    warming = "warming"
    ready = "ready"
    draining = "draining"


class WorkerView(NamedTuple):
    """A worker as it is decided about. Times are seconds of one clock."""

    number: int
    """From 0 to N-1: what people call it by; a replacement has that of the one it relieves."""
    generation: int
    """Grows with each process that is started."""
    state: WorkerState
    started_at: float
    ready_at: float | None
    asked: Reason | None
    """Why it is to be replaced."""
    asked_at: float | None
    replaces: int | None
    """The generation that it is to relieve."""
    own_bytes: int | None
    ready_bytes: int | None
    """Its own memory now, and when it became ready."""
    is_gone: bool = False
    """It has ended, and how is not known yet: it serves no more, and nobody starts for it."""


class Group(NamedTuple):
    """Memory of all together that cannot be taken back, and its limit; None: not known."""

    taken_bytes: int | None
    limit_bytes: int | None


class Start(NamedTuple):
    """Start a worker. `reason` None: none is missing for a reason to replace it."""

    number: int
    replaces: int | None
    reason: Reason | None


class Drain(NamedTuple):
    """Have a worker end. `reason` None: fewer are wanted."""

    generation: int
    reason: Reason | None
    retires_first: bool
    """Its replacement starts when it has ended."""


class Note(NamedTuple):
    """What people are to know; once for each occasion."""

    kind: str
    number: int | None
    text: str


class Plan(NamedTuple):
    """What is to be done now."""

    actions: tuple[Start | Drain, ...]
    notes: tuple[Note, ...]
    is_hopeless: bool
    """Workers end again and again, and none is ready."""


class Planner:
    """Of one service."""

    def __init__(self, policy: ResolvedPolicy, *, overlap: bool = True) -> None:
        self._policy = policy
        self._overlap = overlap
        self._crashes = CrashBudget()
        self._started_at = -float("inf")
        self._started_for: dict[int, Reason] = {}  # generation that is replaced
        self._retiring: dict[int, int] = {}  # number: generation
        self._memory_starts: deque[float] = deque()
        self._starts: deque[float] = deque()
        self._storm_told_at = -float("inf")
        self._replaced_for_memory: set[int] = set()  # numbers
        self._group_rule = GroupRule(
            policy.max_group_memory,
            confirm_samples=policy.confirm_samples,
            hysteresis=policy.hysteresis,
            sample_interval=policy.sample_interval,
        )
        self._told: dict[tuple[str, int | None], object] = {}

    def ended(self, number: int, now: float, *, crashed: bool, was_ready: bool, age: float) -> None:
        """A worker's process is gone; `crashed`: nobody wanted that, or it never became ready.

        `age`: seconds since it was ready, else since it was started.
        """
        if crashed:
            self._crashes.crashed(number, now, was_ready=was_ready, age=age)
        else:
            self._crashes.forget(number)

    def decide(self, now: float, wanted: int, views: Sequence[WorkerView], group: Group) -> Plan:
        """What to do now, with `wanted` workers."""
        turn = _Turn(now, wanted, views, group)
        self._look_at_group(turn)
        self._drain_relieved(turn)
        self._drain_surplus(turn)
        self._start_missing(turn)
        self._start_replacements(turn)
        self._tell_baselines(turn)
        is_hopeless = self._crashes.is_spent(now, is_any_ready=bool(turn.ready))
        return Plan(tuple(turn.actions), tuple(turn.notes), is_hopeless)

    # --- workers that end -----------------------------------------------------------------------

    def _drain_relieved(self, turn: _Turn) -> None:
        """Their replacements are ready."""
        for view in turn.ready:
            old = turn.by_generation.get(view.replaces) if view.replaces is not None else None
            if old is not None and old.state is not WorkerState.draining:
                reason = self._started_for.pop(old.generation, old.asked)
                turn.drain(old, reason)
        for generation in self._started_for.keys() - turn.by_generation.keys():
            del self._started_for[generation]

    def _drain_surplus(self, turn: _Turn) -> None:
        """Fewer are wanted: the oldest go."""
        holders = sorted(
            (view for view in turn.ready if not turn.has_replacement(view)),
            key=lambda view: view.started_at,
        )
        for view in holders:
            if len(turn.held) <= turn.wanted or len(turn.ready) <= turn.wanted:
                return
            turn.drain(view, None)

    # --- workers that start ---------------------------------------------------------------------

    def _start_missing(self, turn: _Turn) -> None:
        for number, generation in list(self._retiring.items()):
            if generation not in turn.by_generation:
                del self._retiring[number]
        # A retiring one is missed when it has ended; until then nobody starts for it.
        taken = turn.held | self._retiring.keys()
        missing = turn.wanted - len(taken)
        number = 0
        while missing > 0:
            if number not in taken:
                missing -= 1
                if self._crashes.may_start(number, turn.now) and self._has_place(turn):
                    turn.start(Start(number, None, None))
            number += 1

    def _has_place(self, turn: _Turn, *, reserved: int = 0) -> bool:
        return turn.processes + reserved < turn.wanted + self._policy.max_concurrent

    def _start_replacements(self, turn: _Turn) -> None:
        for view in self._candidates(turn):
            reason = self._reason_of(view)
            if reason is None or not self._is_allowed(view, reason, turn):
                continue
            if self._policy.dry_run:
                text = f"worker {view.number} would be replaced: {reason} (dry run)"
                self._tell(turn, "dry_run", view.number, text, (view.generation, reason))
                continue
            # Those that wait for their start after a crash keep their places.
            reserved = max(0, turn.wanted - len(turn.held))
            if not self._has_place(turn, reserved=reserved):
                return
            if turn.now - self._started_at < self._policy.min_interval:
                return
            self._replace(view, reason, turn)

    def _candidates(self, turn: _Turn) -> Iterable[WorkerView]:
        """Those that are to be replaced, the longest waiting first."""
        asking = [
            view
            for view in turn.ready
            if self._reason_of(view) is not None and not turn.has_replacement(view)
        ]
        return sorted(asking, key=self._waits_since)

    def _waits_since(self, view: WorkerView) -> float:
        return self._group_rule.chosen_at if view.asked_at is None else view.asked_at

    def _reason_of(self, view: WorkerView) -> Reason | None:
        is_chosen = view.generation == self._group_rule.chosen
        return Reason.group if is_chosen and comes_before(Reason.group, view.asked) else view.asked

    def _is_allowed(self, view: WorkerView, reason: Reason, turn: _Turn) -> bool:
        assert view.ready_at is not None
        if turn.now - view.ready_at < self._policy.min_lifetime:
            return False
        if not self._crashes.may_start(view.number, turn.now):
            return False
        if reason not in MEMORY_REASONS:
            return True
        if reason is Reason.memory and self._is_over_from_the_start(view):
            return False  # _tell_baselines says so
        while self._memory_starts and turn.now - self._memory_starts[0] > _HOUR:
            self._memory_starts.popleft()
        most = self._policy.max_memory_recycles_per_hour
        if len(self._memory_starts) >= most:
            text = (
                f"worker {view.number} stays ({reason}): {most} were replaced for memory within an "
                "hour, and it does not help; the limit is too low, or start-up itself leaks"
            )
            self._tell(turn, "memory_recycles", view.number, text, self._memory_starts[-1])
            return False
        return True

    def _replace(self, view: WorkerView, reason: Reason, turn: _Turn) -> None:
        has_room = self._has_room(view, turn)
        if self._overlap and has_room:
            turn.start(Start(view.number, view.generation, reason))
            self._started_for[view.generation] = reason
        elif self._overlap and turn.wanted < 2:
            text = f"worker {view.number} waits ({reason}): there is no room for a second one"
            self._tell(turn, "no_room", view.number, text, view.generation)
            return
        elif len(turn.ready) < turn.wanted or turn.processes > turn.wanted:
            return  # one at a time, while all others serve
        else:
            self._retiring[view.number] = view.generation
            turn.drain(view, reason, retires_first=True)
            why = "there is no room for both" if self._overlap else "overlap=False"
            text = f"worker {view.number} ends before its replacement starts ({reason}): {why}"
            self._tell(turn, "retire_first", view.number, text, view.generation)
        self._note_start(view, reason, turn)

    def _has_room(self, view: WorkerView, turn: _Turn) -> bool:
        taken, limit = turn.group
        if taken is None or limit is None or view.ready_bytes is None:
            return True
        # Those that start have not taken theirs yet: it would be promised twice.
        return limit - taken >= view.ready_bytes * _ROOM * (turn.starting + 1)

    def _note_start(self, view: WorkerView, reason: Reason, turn: _Turn) -> None:
        self._started_at = turn.now
        self._watch_for_storm(turn)
        if reason not in MEMORY_REASONS:
            self._replaced_for_memory.discard(view.number)
            return
        self._memory_starts.append(turn.now)
        assert view.ready_at is not None
        age = turn.now - view.ready_at
        if view.number in self._replaced_for_memory and age < _AGAIN:
            text = (
                f"replacing worker {view.number} does not help: {reason} again, "
                f"{age:.0f} s after it was ready"
            )
            self._tell(turn, "recycling_does_not_help", view.number, text, view.generation)
        self._replaced_for_memory.add(view.number)

    def _watch_for_storm(self, turn: _Turn) -> None:
        most = _STORM_PER_WORKER * turn.wanted
        self._starts.append(turn.now)
        while len(self._starts) > most + 1 or turn.now - self._starts[0] > _STORM_PERIOD:
            self._starts.popleft()
        if len(self._starts) > most and turn.now - self._storm_told_at > _STORM_PERIOD:
            self._storm_told_at = turn.now
            text = (
                f"more than {most} replacements were begun within 15 minutes: is a limit too low, "
                "or do new workers fail?"
            )
            turn.notes.append(Note("recycle_storm", None, text))

    # --- memory ---------------------------------------------------------------------------------

    def _look_at_group(self, turn: _Turn) -> None:
        growth = {
            view.generation: view.own_bytes - view.ready_bytes
            for view in turn.ready
            if view.own_bytes is not None and view.ready_bytes is not None
        }
        self._group_rule.look(turn.now, turn.group.taken_bytes, growth, turn.by_generation)

    def _is_over_from_the_start(self, view: WorkerView) -> bool:
        limit = self._policy.max_memory
        return limit is not None and view.ready_bytes is not None and view.ready_bytes > limit

    def _tell_baselines(self, turn: _Turn) -> None:
        for view in turn.ready:
            if self._is_over_from_the_start(view):
                assert view.ready_bytes is not None
                assert self._policy.max_memory is not None
                text = (
                    f"worker {view.number} has {view.ready_bytes / _MIB:.0f} MiB of its own when "
                    f"it is ready: max_memory, {self._policy.max_memory / _MIB:.0f} MiB, is too "
                    "low, and it is not replaced for that"
                )
                self._tell(turn, "baseline_over_limit", view.number, text, view.number)

    def _tell(
        self, turn: _Turn, kind: str, number: int | None, text: str, occasion: object
    ) -> None:
        if self._told.get((kind, number)) != occasion:
            self._told[kind, number] = occasion
            turn.notes.append(Note(kind, number, text))


class _Turn:
    """One decision in the making: what there is, as if what was decided so far were done."""

    def __init__(self, now: float, wanted: int, views: Sequence[WorkerView], group: Group) -> None:
        self.now = now
        self.wanted = wanted
        self.group = group
        self.by_generation = {view.generation: view for view in views}
        live = [view for view in views if view.state is not WorkerState.draining]
        self.alive = {view.generation for view in live}
        self.held = {view.number for view in live}
        self.ready = [view for view in live if view.state is WorkerState.ready and not view.is_gone]
        self.starting = len(live) - len(self.ready)
        self.processes = len(views)
        self.actions: list[Start | Drain] = []
        self.notes: list[Note] = []
        self._replaced = {view.replaces for view in live if view.replaces is not None}

    def has_replacement(self, view: WorkerView) -> bool:
        return view.generation in self._replaced

    def start(self, order: Start) -> None:
        self.actions.append(order)
        self.processes += 1
        self.starting += 1
        self.held.add(order.number)
        if order.replaces is not None:
            self._replaced.add(order.replaces)

    def drain(
        self, view: WorkerView, reason: Reason | None, *, retires_first: bool = False
    ) -> None:
        self.actions.append(Drain(view.generation, reason, retires_first))
        self.ready = [one for one in self.ready if one is not view]
        self.alive.discard(view.generation)
        if not any(
            one.number == view.number and one.generation in self.alive
            for one in self.by_generation.values()
        ):
            self.held.discard(view.number)
