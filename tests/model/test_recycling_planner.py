"""Whatever workers do and whenever: the planner keeps what it promises.

A service of pretended workers that start, become ready, fail, crash, ask, withdraw and drain in any
order, with memory that comes and goes. Every decision is compared with the promises, not with a
second planner; in the end nothing fails any more, and all that was asked for has to come about.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memguard_native.recycling.planner import (
    Drain,
    Group,
    Start,
    WorkerState,
    WorkerView,
)
from memguard_native.recycling.reasons import MEMORY_REASONS, Reason

from ..unit.recycling.fleet import MIB, Fleet

HOUR = 3600.0
GROUP_LIMIT = 1000 * MIB
CAPACITY = 1200 * MIB
# The ceiling and hanging are not asked for: the supervisor sees to them itself.
ASKED = sorted(set(Reason) - {Reason.group, Reason.ceiling, Reason.hang, Reason.crash})
LIVE = (WorkerState.starting, WorkerState.warming, WorkerState.ready)
seen: Counter[str] = Counter()

RULES = st.fixed_dictionaries(
    {
        "max_concurrent": st.integers(1, 3),
        "min_interval": st.sampled_from([0.0, 1.0, 5.0]),
        "min_lifetime": st.sampled_from([0.0, 5.0]),
        "max_memory_recycles_per_hour": st.sampled_from([1, 2, 12]),
        "max_group_memory": st.sampled_from([None, GROUP_LIMIT]),
        "confirm_samples": st.integers(2, 3),
        "dry_run": st.sampled_from([False, False, False, True]),
    }
)
picks = st.integers(0, 59)


def one_asks(service: Service) -> None:
    service.fleet.asks(1, Reason.requests)
    service.decide()


def one_is_relieved(service: Service) -> None:
    one_asks(service)
    service.fleet.is_ready(service.fleet.newest)
    service.decide()


def one_asks_without_room(service: Service) -> None:
    service.fleet.group = Group(CAPACITY - 50 * MIB, CAPACITY)
    one_asks(service)


def two_ask_for_memory(service: Service) -> None:
    service.fleet.asks(1, Reason.leak)
    service.fleet.asks(2, Reason.leak)
    service.decide()


def all_have_too_much(service: Service) -> None:
    service.fleet.group = Group(GROUP_LIMIT + 1, CAPACITY)
    for _ in range(service.policy.confirm_samples):
        service.fleet.now += service.policy.sample_interval
        service.decide()


def fewer_are_wanted(service: Service) -> None:
    service.fleet.wanted -= 1
    service.decide()


@dataclass(frozen=True)
class Situation:
    """How a service is when anything may happen to it; what is left out is drawn."""

    arrange: Callable[[Service], None]
    rules: Mapping[str, Any] = field(default_factory=dict)
    wanted: int | None = None
    overlap: bool = True


ACTS = {"dry_run": False}
SITUATIONS = {
    "replacement": Situation(one_asks, ACTS),
    "relieved": Situation(one_is_relieved, ACTS),
    "retires first": Situation(one_asks, ACTS, overlap=False),
    "retire_first": Situation(one_asks_without_room, ACTS | {"max_group_memory": None}, wanted=3),
    "no_room": Situation(one_asks_without_room, ACTS | {"max_group_memory": None}, wanted=1),
    "memory_recycles": Situation(
        two_ask_for_memory, ACTS | {"max_memory_recycles_per_hour": 1}, wanted=2
    ),
    "group": Situation(all_have_too_much, ACTS | {"max_group_memory": GROUP_LIMIT}),
    "surplus": Situation(fewer_are_wanted, wanted=4),
    "dry_run": Situation(one_asks, {"dry_run": True}),
}


class Service(RuleBasedStateMachine):
    situation: ClassVar[Situation]
    fleet: Fleet

    @initialize(wanted=st.integers(1, 4), rules=RULES)
    def begin(self, wanted: int, rules: dict[str, Any]) -> None:
        given = self.situation
        self.fleet = Fleet(
            wanted=given.wanted or wanted, overlap=given.overlap, rules=rules | dict(given.rules)
        )
        self.policy = self.fleet.policy
        self.recycled_at: list[float] = []
        self.recycled_for_memory_at: list[float] = []
        self.retiring: set[int] = set()
        self.samples: list[bool] = []
        self.next_sample_at = -HOUR
        self.confirmed: int | None = None  # the generation that was chosen last
        self.decide()
        self.fleet.is_ready(*self.fleet.views, own_bytes=100 * MIB)
        self.fleet.now += 10.0  # longer than min_lifetime and min_interval
        self.decide()
        given.arrange(self)
        seen["service"] += 1

    def of(self, *states: WorkerState) -> list[WorkerView]:
        return [view for view in self.fleet.views.values() if view.state in states]

    def one_of(self, pick: int, *states: WorkerState) -> int:
        found = self.of(*states)
        return found[pick % len(found)].generation

    def has(self, *states: WorkerState) -> bool:
        return bool(self.of(*states))

    # --- what happens ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 10.0, 10.0, 10.0, 10.0, 60.0, 600.0, HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds
        self.decide()

    @rule(pick=picks, own=st.sampled_from([None, 50, 100, 300]), all_of_them=st.booleans())
    @precondition(lambda self: self.has(WorkerState.starting))
    def becomes_ready(self, pick: int, own: int | None, all_of_them: bool) -> None:
        one = self.one_of(pick, WorkerState.starting)
        for view in self.of(WorkerState.starting):
            if all_of_them or view.generation == one:
                self.fleet.is_ready(view.generation, own_bytes=None if own is None else own * MIB)
        self.decide()

    @rule(pick=picks, is_unlucky=st.sampled_from([True, False, False, False]))
    @precondition(lambda self: self.has(*LIVE))
    def crashes(self, pick: int, is_unlucky: bool) -> None:
        if is_unlucky:
            self.ends(self.one_of(pick, *LIVE))

    @rule(pick=picks)
    @precondition(lambda self: self.has(WorkerState.draining))
    def has_drained(self, pick: int) -> None:
        self.ends(self.one_of(pick, WorkerState.draining))

    def ends(self, generation: int) -> None:
        self.fleet.ends(generation)
        self.retiring.discard(generation)
        self.decide()

    @rule(pick=picks, reason=st.sampled_from(ASKED), all_of_them=st.booleans())
    @precondition(lambda self: self.has(WorkerState.ready))
    def asks(self, pick: int, reason: Reason, all_of_them: bool) -> None:
        one = self.one_of(pick, WorkerState.ready)
        for view in self.of(WorkerState.ready):
            if view.asked is None and (all_of_them or view.generation == one):
                self.fleet.asks(view.generation, reason)
        self.decide()

    @rule(pick=picks)
    @precondition(lambda self: any(view.asked for view in self.of(WorkerState.ready)))
    def withdraws(self, pick: int) -> None:
        asking = [view for view in self.of(WorkerState.ready) if view.asked is not None]
        self.fleet.asks(asking[pick % len(asking)].generation, None)
        self.decide()

    @rule(wanted=st.integers(1, 5))
    def other_number_is_wanted(self, wanted: int) -> None:
        self.fleet.wanted = wanted
        self.decide()

    @rule(taken=st.sampled_from([None, 500, 899, 1000, 1001, 1001, 1100, 1199]))
    def memory_of_all_changes(self, taken: int | None) -> None:
        self.fleet.group = Group(None if taken is None else taken * MIB, CAPACITY)
        self.decide()

    @rule(pick=picks, own=st.integers(1, 1000))
    @precondition(lambda self: self.has(WorkerState.ready))
    def memory_of_one_changes(self, pick: int, own: int) -> None:
        self.fleet.change(self.one_of(pick, WorkerState.ready), own_bytes=own * MIB)
        self.decide()

    # --- what is promised -----------------------------------------------------------------------

    def decide(self) -> None:
        fleet = self.fleet
        self.sample()
        self.starting = len(self.of(WorkerState.starting))
        before = self.of(WorkerState.ready)
        plan = fleet.planner.decide(
            fleet.now, fleet.wanted, list(fleet.views.values()), fleet.group
        )
        for order in plan.actions:
            if isinstance(order, Drain):
                self.check_drain(order)
            else:
                self.check_start(order)
                self.starting += 1
        self.check_numbers(plan.actions, before)
        if plan.is_hopeless:
            assert not before
        seen.update(note.kind for note in plan.notes)
        fleet.done(plan)
        self.check_fleet(has_started=any(isinstance(one, Start) for one in plan.actions))
        # Asked again it does nothing more. It may tell one that waits of a budget that another
        # behind it has just spent; then it is silent: notes are for occasions, not for turns.
        again, silent = (
            fleet.planner.decide(fleet.now, fleet.wanted, list(fleet.views.values()), fleet.group)
            for _ in range(2)
        )
        assert again.actions == ()
        assert silent == ((), (), plan.is_hopeless)

    def check_start(self, order: Start) -> None:
        holders = [view for view in self.of(*LIVE) if view.number == order.number]
        of_number = [view for view in self.fleet.views.values() if view.number == order.number]
        assert not any(view.generation in self.retiring for view in of_number)
        if order.replaces is None:
            seen["start"] += 1
            assert order.reason is None
            assert not holders
            return
        seen["replacement"] += 1
        [old] = holders
        assert old.generation == order.replaces
        assert self.has_room(old, others=self.starting)
        self.check_recycle(old, order.reason)

    def check_drain(self, order: Drain) -> None:
        old = self.fleet.views[order.generation]
        assert old.state is WorkerState.ready
        heirs = [view for view in self.of(WorkerState.ready) if view.replaces == order.generation]
        if heirs:
            seen["relieved"] += 1
            assert not order.retires_first
        elif order.retires_first:
            seen["retires first"] += 1
            assert not self.fleet.overlap or (self.fleet.wanted > 1 and not self.has_room(old))
            assert len(self.of(WorkerState.ready)) >= self.fleet.wanted
            assert not self.retiring
            self.check_recycle(old, order.reason)
            self.retiring.add(order.generation)
        else:
            seen["surplus"] += 1
            assert order.reason is None

    def check_recycle(self, old: WorkerView, reason: Reason | None) -> None:
        now, policy = self.fleet.now, self.policy
        assert not policy.dry_run
        assert old.ready_at is not None
        assert now - old.ready_at >= policy.min_lifetime
        assert all(now - then >= policy.min_interval for then in self.recycled_at[-1:])
        self.recycled_at.append(now)
        if old.asked is None:
            assert reason is Reason.group
            self.check_group(old)
        else:
            assert reason is old.asked
        if reason in MEMORY_REASONS:
            self.recycled_for_memory_at.append(now)
            last_hour = [then for then in self.recycled_for_memory_at if now - then <= HOUR]
            assert len(last_hour) <= policy.max_memory_recycles_per_hour

    def check_numbers(self, actions: tuple[Start | Drain, ...], before: list[WorkerView]) -> None:
        started = [order.number for order in actions if isinstance(order, Start)]
        assert len(started) == len(set(started))
        drained = {
            order.generation
            for order in actions
            if isinstance(order, Drain) and not order.retires_first
        }
        left = {view.number for view in before if view.generation not in drained}
        assert len(left) >= min(self.fleet.wanted, len({view.number for view in before}))

    def check_fleet(self, *, has_started: bool) -> None:
        views, policy = self.fleet.views, self.policy
        if has_started:
            assert len(views) <= self.fleet.wanted + policy.max_concurrent
        pairs = {view.replaces for view in self.of(*LIVE)} & views.keys()
        assert len(pairs | self.retiring) <= policy.max_concurrent

    def has_room(self, view: WorkerView, *, others: int = 0) -> bool:
        """Also for those that start and have not taken theirs yet."""
        group = self.fleet.group
        if group.taken_bytes is None or group.limit_bytes is None or view.ready_bytes is None:
            return True
        return group.limit_bytes - group.taken_bytes >= 1.1 * view.ready_bytes * (1 + others)

    def sample(self) -> None:
        """Every look at memory since one that was chosen is gone, or all was right again."""
        taken, now = self.fleet.group.taken_bytes, self.fleet.now
        if taken is None:
            return
        if self.confirmed not in self.fleet.views or taken < 0.9 * GROUP_LIMIT:
            self.confirmed = None
        if now >= self.next_sample_at:
            self.next_sample_at = now + self.policy.sample_interval
            if self.confirmed is None:
                self.samples.append(taken > GROUP_LIMIT)

    def check_group(self, old: WorkerView) -> None:
        """As many samples in a row as configured were above since the last one that was chosen."""
        seen["group"] += 1
        row = [True] * self.policy.confirm_samples
        assert self.policy.max_group_memory is not None
        if self.confirmed == old.generation:
            return  # its replacement has failed, and is tried again
        assert self.confirmed is None
        assert any(
            self.samples[index : index + len(row)] == row for index in range(len(self.samples))
        )
        self.samples.clear()
        self.confirmed = old.generation

    # --- in the end -----------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        fleet = self.fleet
        fleet.group = Group(0, CAPACITY)
        for _ in range(3 * len(fleet.views) + 10):
            fleet.now += 1.1 * HOUR
            self.decide()
            fleet.is_ready(*(view.generation for view in self.of(WorkerState.starting)))
            for view in self.of(WorkerState.draining):
                fleet.ends(view.generation)
                self.retiring.discard(view.generation)
        assert {view.state for view in fleet.views.values()} == {WorkerState.ready}
        assert len(fleet.views) == len({view.number for view in fleet.views.values()})
        assert len(fleet.views) == fleet.wanted
        if not self.policy.dry_run:
            assert [view for view in fleet.views.values() if view.asked is not None] == []


@pytest.mark.parametrize("kind", SITUATIONS)
def test_whatever_workers_do_the_planner_keeps_what_it_promises(kind):
    seen.clear()
    run_state_machine_as_test(
        type("ServiceInSituation", (Service,), {"situation": SITUATIONS[kind]}),
        settings=settings(max_examples=50, stateful_step_count=50, deadline=None),
    )
    # Each service has come to the decision that it was arranged for.
    assert seen[kind] >= seen["service"] > 0, seen


def size(thing: object) -> int:
    """How many things it keeps."""
    if isinstance(thing, dict | list | set | deque):
        return len(thing)
    return sum(map(size, vars(thing).values())) if hasattr(thing, "__dict__") else 0


def test_ten_thousand_recycles_do_not_grow_what_the_planner_keeps():
    fleet = Fleet(
        wanted=2,
        rules={"min_interval": 0.0, "min_lifetime": 0.0, "max_memory_recycles_per_hour": 12},
    ).begin(own_bytes=MIB)
    reasons = (Reason.requests, Reason.leak, Reason.manual)
    sizes = []
    for index in range(10_000):
        oldest = min(fleet.views)
        fleet.asks(oldest, reasons[index % 3])
        fleet.decide(after=0.01 if index % 100 else 60.0)
        if fleet.starts:
            fleet.is_ready(fleet.newest, own_bytes=MIB)
            fleet.decide()
            fleet.ends(oldest)
        else:  # the budget of an hour is spent
            fleet.asks(oldest, None)
        for told in (fleet.starts, fleet.drains, fleet.notes):
            told.clear()
        sizes.append(size(fleet.planner))
    assert fleet.newest > 6_000
    assert max(sizes) <= 30
