"""The native breaker and the reference do the same, whatever happens in whatever order."""

from __future__ import annotations

import contextvars
import math
from collections import Counter
from collections.abc import Coroutine
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

from memguard_native import CircuitBreaker, CircuitOpenError
from memguard_native._core import ManualClock

from .reference import Call, ReferenceBreaker

RESET_TIMEOUT = 10.0


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
steps: Counter[str] = Counter()

RULES = st.fixed_dictionaries(
    {
        "success_threshold": st.integers(1, 3),
        "half_open_max": st.integers(1, 3),
        "probe_expiry": st.sampled_from(["retry", "failure"]),
        "backoff_factor": st.sampled_from([1.0, 2.0]),
    }
)


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, and end in any order and with any verdict; time passes; hands interfere."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(start=1000.0)
        self.calls: list[tuple[Any, Call]] = []

    @initialize(rules=RULES)
    def choose_rules(self, rules: dict[str, Any]) -> None:
        self.native = CircuitBreaker(
            "model", 3, RESET_TIMEOUT, max_reset_timeout=35.0, clock=self.clock, **rules
        )
        lost_probe_fails = rules.pop("probe_expiry") == "failure"
        self.reference = ReferenceBreaker(
            3, RESET_TIMEOUT, max_reset_timeout=35.0, lost_probe_fails=lost_probe_fails, **rules
        )
        self.guarded = self.native(work)

    def now(self) -> float:
        return self.clock.now()

    @rule(target=running)
    def begin(self) -> tuple[Coroutine[Any, Any, None], Call] | None:
        coroutine = self.guarded()
        expected = self.reference.admit(self.now())
        try:
            # In a context of its own: a call of another task is no part of a probe.
            contextvars.Context().run(coroutine.send, None)
        except CircuitOpenError:
            assert expected is None, "the native breaker rejects what the reference admits"
            return None
        assert expected is not None, "the native breaker admits what the reference rejects"
        self.calls.append((coroutine, expected))
        return coroutine, expected

    @rule(call=running, verdict=st.sampled_from(VERDICTS))
    def end(self, call: tuple[Any, Call] | None, verdict: str) -> None:
        if call is None or call not in self.calls:
            return
        self.calls.remove(call)
        coroutine, expected = call
        raised = {"success": StopIteration, "failure": Boom, "neutral": KeyboardInterrupt}
        with pytest.raises(raised[verdict]):
            coroutine.send(verdict)
        steps[f"{expected.kind} {verdict}" if expected in self.reference.current else "stale"] += 1
        self.reference.settle(expected, verdict, self.now())

    @rule(call=running)
    def drop(self, call: tuple[Any, Call] | None) -> None:
        if call is None or call not in self.calls:
            return
        self.calls.remove(call)
        coroutine, expected = call
        coroutine.close()
        self.reference.settle(expected, "neutral", self.now())

    # Half seconds, and never the end of a lease itself: the lease is rounded up to 16 ms.
    @rule(steps=st.integers(1, 30))
    def pass_time(self, steps: int) -> None:
        self.clock.advance(steps * 0.5)
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
        self.clock.advance(math.ceil(self.native.retry_after) + 0.5)

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
            case "fork":
                self.native._core.after_fork(1)
                self.reference.fork()

    @invariant()
    def they_agree(self) -> None:
        steps["checked"] += 1
        assert self.native.state == self.reference.shown_state(self.now())
        assert self.native.failure_count == self.reference.failures
        if self.reference.state in ("open", "forced_open"):
            left = max(0.0, self.reference.until - self.now())
            expected = left if left < math.inf else self.reference.max_reset_timeout
            assert self.native.retry_after == pytest.approx(expected, abs=0.001)

    def teardown(self) -> None:
        for coroutine, _ in self.calls:
            coroutine.close()


def test_the_native_breaker_agrees_with_the_reference_over_ten_thousand_steps():
    steps.clear()
    run_state_machine_as_test(
        BreakerMachine, settings=settings(max_examples=600, stateful_step_count=50, deadline=None)
    )
    assert steps["checked"] >= 10_000
    # Of each kind of step enough that a difference would show.
    for kind in ("normal failure", "probe success", "probe failure", "probe neutral", "stale"):
        assert steps[kind] >= 50, steps
