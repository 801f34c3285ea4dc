"""A service of pretended workers: does what a planner decides, and makes them live and end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from memguard_native.recycling.planner import (
    Drain,
    Group,
    Note,
    Plan,
    Planner,
    Start,
    WorkerState,
    WorkerView,
)
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.reasons import Reason

MIB = 2**20
AGED = 100.0
"""Seconds after which workers are old enough for anything."""


@dataclass
class Fleet:
    """`now` moves by hand; workers become ready and end by hand."""

    wanted: int = 2
    overlap: bool = True
    rules: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = RecyclePolicy(**self.rules).resolved(  # type: ignore[arg-type]
            workers=self.wanted, limit_bytes=None, cgroup_limit_bytes=None
        )
        self.planner = Planner(self.policy, overlap=self.overlap)
        self.now = 0.0
        self.views: dict[int, WorkerView] = {}
        self.group = Group(None, None)
        self.notes: list[Note] = []
        self.starts: list[Start] = []
        self.drains: list[Drain] = []
        self.is_hopeless = False
        self._generation = 0

    # --- time and decisions ---------------------------------------------------------------------

    def decide(self, *, after: float = 0.0) -> list[Start | Drain]:
        """What is decided so many seconds later; it is done."""
        self.now += after
        plan = self.planner.decide(self.now, self.wanted, list(self.views.values()), self.group)
        self.done(plan)
        return list(plan.actions)

    def done(self, plan: Plan) -> None:
        """Do what was decided."""
        self.notes += plan.notes
        self.is_hopeless = plan.is_hopeless
        for action in plan.actions:
            if isinstance(action, Start):
                self.starts.append(action)
                self._start(action)
            else:
                self.drains.append(action)
                self.change(action.generation, state=WorkerState.draining)

    def _start(self, order: Start) -> None:
        self._generation += 1
        self.views[self._generation] = WorkerView(
            number=order.number,
            generation=self._generation,
            state=WorkerState.starting,
            started_at=self.now,
            ready_at=None,
            asked=None,
            asked_at=None,
            replaces=order.replaces,
            own_bytes=None,
            ready_bytes=None,
        )

    # --- what workers do ------------------------------------------------------------------------

    def change(self, generation: int, **fields: object) -> None:
        self.views[generation] = self.views[generation]._replace(**fields)  # type: ignore[arg-type]

    def is_ready(self, *generations: int, own_bytes: int | None = None) -> None:
        for generation in generations:
            self.change(
                generation,
                state=WorkerState.ready,
                ready_at=self.now,
                own_bytes=own_bytes,
                ready_bytes=own_bytes,
            )

    def asks(self, generation: int, reason: Reason | None = Reason.requests) -> None:
        asked_at = None if reason is None else self.now
        self.change(generation, asked=reason, asked_at=asked_at)

    def ends(self, *generations: int) -> None:
        """As they were told to if they drain; else they crash."""
        for generation in generations:
            view = self.views.pop(generation)
            self.planner.ended(
                view.number,
                self.now,
                crashed=view.state is not WorkerState.draining,
                was_ready=view.ready_at is not None,
                age=self.now - (view.started_at if view.ready_at is None else view.ready_at),
            )

    # --- what there is --------------------------------------------------------------------------

    def begin(self, *, own_bytes: int | None = None) -> Fleet:
        """Start all; they are ready, and old enough for anything."""
        self.decide()
        self.is_ready(*self.views, own_bytes=own_bytes)
        assert self.decide(after=AGED) == []
        self.starts.clear()
        return self

    def recycle(
        self, generation: int, reason: Reason = Reason.requests, *, after: float = AGED
    ) -> int:
        """Have it replaced, from its wish to its end; the generation of the new one."""
        self.now += after
        self.asks(generation, reason)
        [order] = self.decide()
        assert isinstance(order, Start)
        assert order.replaces == generation
        self.is_ready(self.newest)
        [drain] = self.decide(after=1.0)
        assert isinstance(drain, Drain)
        self.ends(generation)
        return self.newest

    @property
    def newest(self) -> int:
        return self._generation

    def in_state(self, *states: WorkerState) -> list[int]:
        return [one.generation for one in self.views.values() if one.state in states]

    def texts(self, kind: str) -> list[str]:
        return [note.text for note in self.notes if note.kind == kind]


def starts(actions: Iterable[Start | Drain]) -> list[int]:
    """The numbers of those that are started."""
    return [action.number for action in actions if isinstance(action, Start)]
