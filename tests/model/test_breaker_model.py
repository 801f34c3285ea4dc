"""The native breaker and the reference do the same, whatever happens in whatever order."""

from __future__ import annotations

import contextvars
import itertools
import math
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from memguard_native import CircuitBreaker, CircuitOpenError, pile_up
from memguard_native._core import SEGMENT_BREAKERS, Attempt, ManualClock
from memguard_native.breaker import probing

from .reference import (
    COUNT_WINDOW,
    MAX_RESET_TIMEOUT,
    MINIMUM_CALLS,
    MONITOR_INTERVAL,
    Call,
    ReferenceBreaker,
    Rules,
)


class Boom(Exception):
    pass


class Verdict:
    """Awaited by a call that runs; the one who ends the call sends how."""

    def __await__(self):
        return (yield self)


async def work() -> None:
    how = await Verdict()
    if how == "failure":
        raise Boom
    if how == "neutral":
        raise KeyboardInterrupt


VERDICTS = ("success", "failure", "neutral")
HANDS = ("trip", "reset", "force_open", "disable", "auto", "fork")
RAISED = {"success": StopIteration, "failure": Boom, "neutral": KeyboardInterrupt}
steps: Counter[str] = Counter()
numbers = itertools.count()

RULES = st.builds(
    Rules,
    failure_threshold=st.sampled_from([2, 3, 5, 100]),
    success_threshold=st.integers(1, 3),
    half_open_max=st.integers(1, 3),
    lost_probe_fails=st.booleans(),
    backoff_factor=st.sampled_from([1.0, 2.0]),
    failure_rate=st.sampled_from([None, 0.5, 0.5, 1.0]),
    lump_interval=st.sampled_from([0.0, 0.0, 0.0, 2.0]),
    trips_at_every=st.sampled_from([None, None, 4]),
    max_in_flight=st.sampled_from([None, None, 3]),
    enforce=st.sampled_from([1.0, 1.0, 1.0, 0.0]),
    has_probe=st.sampled_from([False, False, True]),
)


def arguments(rules: Rules) -> dict[str, Any]:
    """The same rules for the native breaker."""
    every, most = rules.trips_at_every, rules.max_in_flight
    trip_if = () if every is None else (lambda snapshot: snapshot.failures % every == 0,)
    return {
        "failure_threshold": rules.failure_threshold,
        "reset_timeout": rules.reset_timeout,
        "max_reset_timeout": MAX_RESET_TIMEOUT,
        "success_threshold": rules.success_threshold,
        "half_open_max": rules.half_open_max,
        "probe_expiry": "failure" if rules.lost_probe_fails else "retry",
        "backoff_factor": rules.backoff_factor,
        "failure_rate": rules.failure_rate,
        "count_window": COUNT_WINDOW,
        "minimum_calls": MINIMUM_CALLS,
        "lump_interval": rules.lump_interval,
        "trip_if": trip_if if most is None else (*trip_if, pile_up(most)),
        "enforce": rules.enforce,
        "probe": never_run if rules.has_probe else None,
        "monitor_interval": MONITOR_INTERVAL,
    }


def never_run() -> None:
    """The machine itself is the prober."""
    raise AssertionError("nobody watches the breakers of the model")


class RunningCall:
    """A call of the native breaker, by a coroutine or as the prober's attempt."""

    def __init__(self, native: Any, expected: Call) -> None:
        self.native = native
        self.expected = expected

    def end(self, verdict: str) -> None:
        if isinstance(self.native, Attempt):
            getattr(self.native, verdict)()
            return
        with pytest.raises(RAISED[verdict]):
            self.native.send(verdict)

    def drop(self) -> None:
        if isinstance(self.native, Attempt):
            self.native.neutral()
        else:
            self.native.close()


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, and end in any order and with any verdict; time passes; hands interfere."""

    running = Bundle("running")
    scope = "local"

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(start=1000.0)
        self.calls: list[RunningCall] = []
        self.told: list[tuple[str, str, str, bool]] = []
        self.given: dict[Rules, dict[str, Any]] = {}

    @initialize(rules=RULES)
    def choose_rules(self, rules: Rules) -> None:
        number = next(numbers)
        self.native = CircuitBreaker(
            f"model {number}",
            clock=self.clock,
            scope=self.scope,
            namespace=f"model-{number // SEGMENT_BREAKERS}",
            on_event=self.listen,
            inline_events=True,
            **self.arguments_of(rules),
        )
        self.reference = ReferenceBreaker(rules)
        self.guarded = self.native(work)

    def arguments_of(self, rules: Rules) -> dict[str, Any]:
        """The same objects each time, as a user who goes back to earlier rules has."""
        return self.given.setdefault(rules, arguments(rules))

    def listen(self, event: Any) -> None:
        steps[event.reason] += 1
        self.told.append((event.from_state, event.to_state, event.reason, event.is_shadow))

    def now(self) -> float:
        return self.clock.now()

    @rule(rules=RULES)
    def configure(self, rules: Rules) -> None:
        self.native.configure(**self.arguments_of(rules))
        self.reference.configure(rules)

    @rule(number=st.integers(0, 9))
    def configure_as_before(self, number: int) -> None:
        """Back to rules that the breaker had already."""
        self.configure(list(self.given)[number % len(self.given)])

    @rule(target=running)
    def begin(self) -> RunningCall | None:
        expected = self.reference.admit(self.now())
        coroutine = self.guarded()
        try:
            # In a context of its own: a call of another task is no part of a probe.
            contextvars.Context().run(coroutine.send, None)
        except CircuitOpenError:
            assert expected is None, "the native breaker rejects what the reference admits"
            return None
        assert expected is not None, "the native breaker admits what the reference rejects"
        self.calls.append(RunningCall(coroutine, expected))
        return self.calls[-1]

    @rule(target=running)
    def probe(self) -> RunningCall | None:
        due = self.reference.is_probe_due(self.now())
        assert self.native._core.is_probe_due() == due
        if not due:
            return None
        expected = self.reference.admit(self.now(), as_prober=True)
        try:
            attempt = contextvars.Context().run(Attempt, self.native._core, True)
        except CircuitOpenError:
            assert expected is None, "the native breaker rejects the prober"
            return None
        assert expected is not None, "the native breaker admits the prober"
        steps["prober"] += 1
        self.calls.append(RunningCall(attempt, expected))
        return self.calls[-1]

    @rule(call=running, verdict=st.sampled_from(VERDICTS))
    def end(self, call: RunningCall | None, verdict: str) -> None:
        if call is None or call not in self.calls:
            return
        self.calls.remove(call)
        call.end(verdict)
        expected = call.expected
        steps[f"{expected.kind} {verdict}" if expected in self.reference.current else "stale"] += 1
        self.reference.settle(expected, verdict, self.now())

    @rule(call=running)
    def drop(self, call: RunningCall | None) -> None:
        if call is None or call not in self.calls:
            return
        self.calls.remove(call)
        call.drop()
        self.reference.settle(call.expected, "neutral", self.now())

    @rule(steps=st.integers(1, 30))
    def pass_time(self, steps: int) -> None:
        self.advance(steps * 0.5)

    def advance(self, seconds: float) -> None:
        """By half seconds, and never to the end of a lease: that is rounded up to 16 ms."""
        self.clock.advance(seconds)
        if self.reference.state == "half_open" and self.now() == self.reference.until:
            self.clock.advance(0.5)

    @rule(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=6))
    def call_in_a_row(self, verdicts: list[str]) -> None:
        """Whole calls, one after the other: what moves the counters."""
        for verdict in verdicts:
            self.end(self.begin(), verdict)
            self.they_agree()

    @rule(failures=st.integers(1, 4))
    def fail_and_wait(self, failures: int) -> None:
        """A way into half-open, which chance alone finds too rarely."""
        self.call_in_a_row(["failure"] * failures)
        self.advance(math.ceil(self.native.retry_after) + 0.5)

    @rule(rules=RULES, failures=st.integers(0, 5), verdict=st.sampled_from(VERDICTS))
    def configure_in_a_call(self, rules: Rules, failures: int, verdict: str) -> None:
        """A call, after some failures most likely a probe, that begins and ends by other rules."""
        if failures > 0:
            self.fail_and_wait(failures)
        call = self.begin()
        self.configure(rules)
        self.end(call, verdict)

    @rule(hand=st.sampled_from(HANDS), seconds=st.sampled_from([None, 5.0, 20.0]))
    def interfere(self, hand: str, seconds: float | None) -> None:
        now, until = self.now(), self.now() + (seconds or math.inf)
        match hand:
            case "trip":
                self.native.trip()
                self.reference.trip(now)
            case "reset":
                self.native.reset()
                self.reference.reset()
            case "force_open":
                self.native.force_open(seconds)
                self.reference.force_open(until)
            case "disable":
                self.native.disable(seconds)
                self.reference.disable(until)
            case "auto":
                self.native.auto()
                self.reference.auto(now)
            case "fork" if self.scope == "local" and self.reference.in_flight == 0:
                # What it does to shared breakers and to calls in flight takes a real fork.
                self.native._core.after_fork(1)
                self.reference.fork()

    @invariant()
    def they_agree(self) -> None:
        steps["checked"] += 1
        now, reference = self.now(), self.reference
        assert self.native.state == reference.shown_state(now)
        assert self.native.failure_count == reference.failures
        assert self.told == reference.events
        found = self.native.snapshot()
        assert found.generation == reference.generation
        assert found.step == reference.step
        assert found.in_flight == reference.in_flight
        totals = (found.failures, found.neutrals, found.stale, found.rejections, found.unenforced)
        assert totals == tuple(reference.totals.values())
        if reference.state == "closed":
            window = reference.policy.window or ()
            assert (found.window_calls, found.window_failures) == (len(window), sum(window))
        expected = reference.retry_after(now)
        if expected is not None:
            assert self.native.retry_after == pytest.approx(expected, abs=0.001)

    def teardown(self) -> None:
        for call in self.calls:
            call.drop()


class SharedBreakerMachine(BreakerMachine):
    """The same in memory that processes share."""

    scope = "host"


MACHINES = [BreakerMachine, SharedBreakerMachine]


def compare(monkeypatch, machine: type[BreakerMachine], *, examples: int, at_least: int) -> None:
    monkeypatch.setattr(probing, "watch", lambda *breaker: None)
    steps.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=50, deadline=None),
    )
    assert steps["checked"] >= at_least
    # Of each kind of step enough that a difference would show.
    for kind in (
        *("normal failure", "probe success", "probe failure", "probe neutral", "stale"),
        *("unrecorded failure", "prober", "custom", "failure_rate", "reconfigured", "probe_lost"),
    ):
        assert steps[kind] >= examples // 20, (kind, steps)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_native_breaker_agrees_with_the_reference_over_ten_thousand_steps(monkeypatch, machine):
    compare(monkeypatch, machine, examples=250, at_least=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_the_native_breaker_agrees_with_the_reference_over_a_hundred_thousand_steps(
    monkeypatch, machine
):
    compare(monkeypatch, machine, examples=3000, at_least=100_000)
