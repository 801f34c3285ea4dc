"""R18 and the states by rule: rules that change while calls run, shadow, gradual enforcement."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, ConfigError, State, pile_up
from memguard_native.breaker import events

from .calls import Boom, Suspend, admitted, fail, fail_times, succeed


def fail_in(breaker):
    """Starts a call that is in flight; what it returns ends it with a failure."""
    guarded = breaker(hang_and_fail)
    call = guarded()
    call.send(None)

    def end():
        with pytest.raises(Boom):
            call.send(None)

    return end


async def hang_and_fail():
    await Suspend()
    raise Boom


# --- R18 ------------------------------------------------------------------------------------------


def test_a_lower_threshold_holds_for_the_next_failure(breaker):
    fail_times(breaker, 2)
    breaker.configure(failure_threshold=3)
    assert breaker.config.failure_threshold == 3
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_the_threshold_can_be_lowered_under_load(clock):
    breaker = CircuitBreaker("load", 2**31 - 1, clock=clock)
    guarded = breaker(fail)
    stop = threading.Event()
    seen = []

    def work():
        while not stop.is_set():
            try:
                guarded()
            except Boom:
                continue
            except CircuitOpenError as error:
                seen.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    breaker.configure(failure_threshold=3)
    for thread in threads:
        thread.join(20)
    stop.set()
    assert len(seen) == 4
    assert breaker.snapshot().transitions_by_kind == {"closed->open": 1}


def test_calls_in_flight_finish_under_the_old_rules(breaker):
    end = fail_in(breaker)
    breaker.configure(failure_threshold=1)
    end()
    assert breaker.state is State.closed
    fail_times(breaker, 1)
    assert breaker.state is State.open


def test_a_plain_call_in_flight_finishes_under_the_old_rules(breaker):
    def reconfigure_and_fail():
        breaker.configure(failure_threshold=1)
        raise Boom

    with pytest.raises(Boom):
        breaker(reconfigure_and_fail)()
    assert breaker.state is State.closed


def test_the_judgement_of_outcomes_changes_with_the_rules(breaker):
    end = fail_in(breaker)
    breaker.configure(ignore=Boom)
    end()
    assert breaker.failure_count == 1
    fail_times(breaker, 5)
    assert (breaker.failure_count, breaker.snapshot().neutrals) == (1, 5)


def test_guards_that_exist_follow_whatever_the_rules_need(clock):
    breaker = CircuitBreaker("follow", None, clock=clock)
    guarded = breaker(succeed)
    assert guarded() == "ok"
    assert breaker.snapshot().successes is None
    breaker.configure(count_calls=True)
    for _ in range(3):
        guarded()
    assert breaker.snapshot().successes == 3
    breaker.configure(failure_if_result=lambda result: result == "ok", failure_threshold=2)
    guarded()
    guarded()
    with pytest.raises(CircuitOpenError):
        guarded()
    breaker.configure(failure_if_result=None, count_calls=None)
    breaker.reset()
    assert guarded() == "ok"
    assert breaker.snapshot().failures == 2


def test_successes_that_were_counted_stay_counted(clock):
    breaker = CircuitBreaker("sum", clock=clock, count_calls=True)
    guarded = breaker(succeed)
    for window in (10, 20, 10):
        breaker.configure(count_window=window)
        guarded()
    assert breaker.snapshot().successes == 3


def test_a_window_is_kept_if_its_size_is_unchanged(clock):
    breaker = CircuitBreaker("kept", None, failure_rate=0.9, count_window=10, clock=clock)
    fail_times(breaker, 4)
    breaker.configure(failure_rate=0.5, minimum_calls=5)
    assert breaker.snapshot().window_failures == 4
    fail_times(breaker, 1)
    assert breaker.snapshot().cause == "failure_rate"


def test_a_window_of_another_size_begins_empty(clock):
    breaker = CircuitBreaker("empty", None, failure_rate=0.5, count_window=10, clock=clock)
    fail_times(breaker, 4)
    breaker.configure(count_window=8)
    assert breaker.snapshot().window_calls == 0
    fail_times(breaker, 7)
    assert breaker.state is State.closed


def test_rules_that_return_find_an_empty_window(clock):
    breaker = CircuitBreaker("again", None, failure_rate=0.5, count_window=10, clock=clock)
    fail_times(breaker, 9)
    breaker.configure(failure_rate=None)
    fail_times(breaker, 9)
    breaker.configure(failure_rate=0.5)
    assert breaker.snapshot().window_calls == 0


def test_a_lower_longest_wait_shortens_a_running_one(clock):
    breaker = CircuitBreaker("shorter", 1, 600.0, clock=clock)
    fail_times(breaker, 1)
    assert breaker.retry_after == pytest.approx(600)
    breaker.configure(reset_timeout=10.0, max_reset_timeout=20.0)
    assert breaker.retry_after == pytest.approx(20, abs=0.002)
    clock.advance(20.001)
    assert admitted(breaker)


def test_what_was_completed_is_completed_anew(breaker):
    breaker.configure(reset_timeout=600.0)
    assert breaker.config.probe_timeout == 600.0
    assert breaker.config.max_reset_timeout == 600.0
    breaker.configure(probe_timeout=5.0)
    breaker.configure(reset_timeout=30.0)
    assert breaker.config.probe_timeout == 5.0
    assert breaker.config.max_reset_timeout == 300.0


def test_the_change_is_an_event_and_no_change_is_none(clock):
    told = []
    breaker = CircuitBreaker("told", clock=clock, on_event=told.append, inline_events=True)
    breaker.configure(failure_threshold=3)
    breaker.configure(failure_threshold=3)
    assert [(one.from_state, one.to_state, one.reason) for one in told] == [
        ("closed", "closed", "reconfigured")
    ]


def test_another_listener_hears_from_now_on(clock):
    first, second = [], []
    breaker = CircuitBreaker("listener", clock=clock, on_event=first.append)
    breaker.trip()
    assert events.flush()
    breaker.configure(on_event=second.append)
    breaker.reset()
    assert events.flush()
    assert [one.reason for one in first] == ["manual"]
    assert [one.reason for one in second] == ["reconfigured", "reset"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"failure_treshold": 3}, "failure_treshold"),
        ({"failure_threshold": 0}, "failure_threshold"),
        ({"name": "other"}, "name"),
        ({"call_timeout": 1.0}, "call_timeout"),
        ({"failure_threshold": 2, "jitter": 7}, "jitter"),
    ],
)
def test_bad_changes_are_refused_and_nothing_changes(breaker, changes, field):
    with pytest.raises(ConfigError) as caught:
        breaker.configure(**changes)
    assert caught.value.field == field
    assert breaker.config.failure_threshold == 5


def test_a_call_timeout_that_exists_can_change(clock):
    breaker = CircuitBreaker("slow", clock=clock, call_timeout=60.0)

    @breaker
    async def hang():
        await asyncio.sleep(10)

    breaker.configure(call_timeout=0.01)
    with pytest.raises(TimeoutError):
        asyncio.run(hang())


def test_going_back_and_forth_keeps_each_set_of_rules_once(breaker):
    gc.collect()
    before = sum(type(one).__name__ == "Policy" for one in gc.get_objects())
    for _ in range(50):
        breaker.configure(failure_threshold=3)
        breaker.configure(failure_threshold=5)
    gc.collect()
    after = sum(type(one).__name__ == "Policy" for one in gc.get_objects())
    assert after - before == 1


def test_a_breaker_that_was_reconfigured_can_be_collected(clock):
    class Owner:
        def __init__(self):
            self.breaker = CircuitBreaker("cycle", clock=clock, fallback=self.answer)
            self.breaker.configure(failure_if=self.judge)
            self.guarded = self.breaker(succeed)

        def answer(self):
            return None

        def judge(self, error):
            return True

    gone = weakref.ref(Owner())
    gc.collect()
    assert gone() is None


def test_a_call_that_opens_by_longer_waits_opens_for_as_long_as_the_new_rules_allow(clock):
    breaker = CircuitBreaker("longer", 1, 600.0, clock=clock)
    end = fail_in(breaker)
    breaker.configure(reset_timeout=10.0, max_reset_timeout=300.0)
    end()
    assert breaker.retry_after == pytest.approx(300, abs=0.002)


def test_a_shorter_lease_does_not_lose_a_probe_that_runs(clock):
    breaker = CircuitBreaker("lease", 1, clock=clock)
    fail_times(breaker, 1)
    clock.advance(60)
    probe = contextvars.Context().run(breaker.attempt)  # else all else is part of it
    breaker.configure(reset_timeout=5.0)
    clock.advance(1)
    assert not admitted(breaker)
    clock.advance(4.1)
    assert admitted(breaker)
    probe.success()
    assert breaker.snapshot().stale == 1


def test_a_lower_success_threshold_closes_with_the_next_probe(clock):
    breaker = CircuitBreaker("fewer", 1, clock=clock, success_threshold=3, half_open_max=3)
    fail_times(breaker, 1)
    clock.advance(60)
    assert admitted(breaker)
    assert admitted(breaker)
    breaker.configure(success_threshold=2)
    assert admitted(breaker)
    assert breaker.state is State.closed


def test_rules_that_return_share_the_window_of_their_size(clock):
    breaker = CircuitBreaker("share", None, failure_rate=0.9, count_window=100, clock=clock)
    breaker.configure(count_window=50)
    breaker.configure(count_window=100, failure_rate=0.8)
    fail_times(breaker, 7)
    breaker.configure(failure_rate=0.9)
    assert breaker.snapshot().window_calls == 7


def test_what_was_given_stays_given_even_if_it_is_the_default(clock):
    breaker = CircuitBreaker("given", reset_timeout=60.0, probe_timeout=60.0, clock=clock)
    breaker.configure(reset_timeout=5.0)
    assert breaker.config.probe_timeout == 60.0


def test_objects_that_cannot_be_compared_are_other_rules(breaker):
    class Array:
        __hash__ = None

        def __eq__(self, other):
            raise ValueError("ambiguous")

    breaker.configure(fallback=Array())
    breaker.configure(fallback=Array())
    breaker.configure(fallback=1)
    breaker.configure(fallback=True)
    assert breaker.config.fallback is True


# --- shadow and gradual enforcement ---------------------------------------------------------------


def test_shadow_rejects_nothing_and_shows_what_would_be(clock):
    breaker = CircuitBreaker("shadow", 2, clock=clock, enforce=0.0)
    fail_times(breaker, 2)
    assert breaker.state is State.shadow
    assert breaker.snapshot().would_be == "open"
    for _ in range(3):
        assert admitted(breaker)
    found = breaker.snapshot()
    assert (found.rejections, found.unenforced, found.stale) == (0, 3, 0)


def test_in_shadow_the_machine_runs_on(clock):
    breaker = CircuitBreaker("shadow", 1, clock=clock, enforce=0.0)
    fail_times(breaker, 1)
    clock.advance(60)
    probe = breaker.attempt()
    beside = breaker.attempt()
    assert breaker.snapshot().would_be == "half_open"
    beside.failure()
    assert breaker.snapshot().would_be == "half_open"
    probe.success()
    assert breaker.snapshot().would_be == "closed"


def test_shadow_events_say_that_they_are(clock):
    told = []
    breaker = CircuitBreaker(
        "shadow", 1, clock=clock, enforce=0.0, on_event=told.append, inline_events=True
    )
    fail_times(breaker, 1)
    assert [(one.to_state, one.is_shadow) for one in told] == [("open", True)]
    breaker.configure(enforce=1.0)
    breaker.reset()
    assert not told[-1].is_shadow


def test_shadow_by_hand_ends_with_auto(clock):
    breaker = CircuitBreaker("shadow", clock=clock, enforce=0.5)
    breaker.shadow()
    breaker.shadow()
    assert (breaker.state, breaker.config.enforce) == (State.shadow, 0.0)
    breaker.auto()
    assert (breaker.state, breaker.config.enforce) == (State.closed, 0.5)


def test_shadow_ends_with_auto_also_after_other_changes(clock):
    breaker = CircuitBreaker("shadow", clock=clock)
    breaker.shadow()
    breaker.configure(failure_threshold=3)
    breaker.auto()
    assert breaker.state is State.closed


def test_in_shadow_nobody_has_to_wait(clock):
    breaker = CircuitBreaker("shadow", 1, clock=clock, enforce=0.0)
    fail_times(breaker, 1)
    assert breaker.retry_after == 0.0
    breaker.force_open()
    assert breaker.retry_after > 0


def test_what_the_rules_say_is_enforced_as_soon_as_the_shadow_ends(clock):
    breaker = CircuitBreaker("shadow", 1, clock=clock, enforce=0.0)
    fail_times(breaker, 1)
    breaker.configure(enforce=1.0)
    assert not admitted(breaker)


def test_forced_open_and_disabled_outrank_the_shadow(clock):
    breaker = CircuitBreaker("shadow", clock=clock, enforce=0.0)
    breaker.force_open()
    assert breaker.state is State.forced_open
    assert not admitted(breaker)
    breaker.disable()
    assert breaker.state is State.disabled
    breaker.auto()
    assert breaker.state is State.shadow


def test_a_share_of_the_rejections_is_enforced(clock):
    breaker = CircuitBreaker("gradual", clock=clock, enforce=0.3)
    breaker.trip()
    guarded = breaker(succeed)
    rejected = 0
    for _ in range(2000):
        try:
            guarded()
        except CircuitOpenError:
            rejected += 1
    found = breaker.snapshot()
    assert (found.rejections, found.unenforced) == (rejected, 2000 - rejected)
    assert 450 < rejected < 750
    assert breaker.state is State.open


def test_a_pile_up_in_shadow_lets_calls_run(clock):
    breaker = CircuitBreaker("pile", clock=clock, enforce=0.0, trip_if=pile_up(1))
    calls = [breaker.attempt() for _ in range(3)]
    assert breaker.snapshot().would_be == "open"
    for call in calls:
        call.success()
    assert breaker.snapshot().in_flight == 0


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "all"])
def test_a_share_out_of_its_range_is_refused(share):
    with pytest.raises(ConfigError, match="enforce"):
        CircuitBreaker("gradual", enforce=share)


def test_calls_from_before_a_rule_was_taken_away_are_forgotten_when_it_comes_back(clock):
    breaker = CircuitBreaker("came back", clock=clock, trip_if=pile_up(3))
    breaker.call(succeed)
    breaker.configure(trip_if=())
    breaker.call(succeed)
    breaker.configure(trip_if=pile_up(3))
    assert breaker.snapshot().window_calls == 0
