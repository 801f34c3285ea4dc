"""Rules of the user's: when they are asked, what they see, what becomes of their answer."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
import threading

import pytest

from memguard_native import (
    BreakerSnapshot,
    CircuitBreaker,
    CircuitOpenError,
    ConfigError,
    State,
    TripRule,
    budget,
    pile_up,
)

from .calls import Boom, admitted, fail, fail_times, succeed

# --- trip_if --------------------------------------------------------------------------------------


def test_a_rule_is_asked_after_each_failure_and_sees_it(clock):
    seen = []
    breaker = CircuitBreaker("rules", clock=clock, trip_if=lambda s: seen.append(s.failures))
    assert admitted(breaker)
    assert seen == []
    fail_times(breaker, 2)
    assert seen == [1, 2]


def test_a_rule_that_gives_a_reason_opens_and_the_reason_is_told(clock):
    breaker = CircuitBreaker(
        "rules", None, clock=clock, trip_if=lambda s: s.failures >= 2 and "two are enough"
    )
    fail_times(breaker, 1)
    assert breaker.state is State.closed
    fail_times(breaker, 1)
    found = breaker.snapshot()
    assert (found.state, found.cause, found.detail) == ("open", "custom", "two are enough")
    assert found.last_error == ("Boom", "no answer")
    with pytest.raises(CircuitOpenError, match="two are enough") as caught:
        breaker.call(succeed)
    assert (caught.value.cause, caught.value.detail) == ("custom", "two are enough")


@pytest.mark.parametrize("answer", [None, False, "", 0])
def test_a_rule_that_gives_no_reason_leaves_the_circuit_closed(clock, answer):
    breaker = CircuitBreaker("rules", None, clock=clock, trip_if=lambda s: answer)
    fail_times(breaker, 3)
    assert breaker.state is State.closed


def test_a_rule_may_say_true_and_a_long_reason_is_cut(clock):
    yes = CircuitBreaker("rules", clock=clock, trip_if=lambda s: True)
    fail_times(yes, 1)
    assert yes.snapshot().detail == "a rule of the user's"
    wordy = CircuitBreaker("rules", clock=clock, trip_if=lambda s: "x" * 1000)
    fail_times(wordy, 1)
    assert wordy.snapshot().detail == "x" * 160


def test_the_built_in_rules_come_first_and_name_the_reason(clock):
    breaker = CircuitBreaker("rules", 1, clock=clock, trip_if=lambda s: "mine")
    fail_times(breaker, 1)
    assert breaker.snapshot().cause == "consecutive_failures"


def test_of_several_rules_the_first_that_fires_names_the_reason(clock):
    breaker = CircuitBreaker(
        "rules", clock=clock, trip_if=(lambda s: None, lambda s: "second", lambda s: "third")
    )
    fail_times(breaker, 1)
    assert breaker.snapshot().detail == "second"


def test_a_rule_that_raises_is_logged_once_and_says_no(clock, caplog):
    breaker = CircuitBreaker("rules", clock=clock, trip_if=lambda s: 1 / 0)
    with caplog.at_level(logging.ERROR, "memguard_native.breaker"):
        fail_times(breaker, 3)
    assert breaker.state is State.closed
    assert len(caplog.records) == 1


def test_a_rule_at_the_verdict_is_asked_after_a_success_too(clock):
    breaker = CircuitBreaker(
        "rules",
        clock=clock,
        trip_if=TripRule(lambda s: s.successes == 3 and "three", when="verdict"),
    )
    guarded = breaker(succeed)
    for _ in range(3):
        assert guarded() == "ok"
    with pytest.raises(CircuitOpenError):
        guarded()


def test_a_rule_at_the_admission_rejects_the_call_that_it_was_asked_for(clock):
    ran = []
    stop = threading.Event()
    breaker = CircuitBreaker(
        "rules",
        clock=clock,
        trip_if=TripRule(lambda s: stop.is_set() and "stop", when="admission"),
    )
    guarded = breaker(lambda: ran.append(1))
    guarded()
    stop.set()
    with pytest.raises(CircuitOpenError):
        guarded()
    assert ran == [1]


@pytest.mark.parametrize("when", ["failure", "verdict", "admission"])
def test_a_rule_is_asked_for_coroutines_generators_and_attempts(clock, when):
    asked = []
    breaker = CircuitBreaker(
        "rules", None, clock=clock, trip_if=TripRule(lambda s: asked.append(1), when=when)
    )

    @breaker
    async def coroutine():
        raise Boom

    @breaker
    def generator():
        yield 1
        raise Boom

    for call in (lambda: asyncio.run(coroutine()), lambda: list(generator())):
        with pytest.raises(Boom):
            call()
    breaker.attempt().failure()
    assert len(asked) == 3


def test_a_rule_may_use_the_breaker_itself(clock):
    breaker: CircuitBreaker = CircuitBreaker(
        "rules", None, clock=clock, trip_if=lambda s: breaker.trip(reason="by the rule")
    )
    fail_times(breaker, 1)
    assert breaker.snapshot().detail == "by the rule"


def test_ctrl_c_in_a_rule_reaches_the_main_thread():
    code = (
        "import signal\n"
        "from memguard_native import CircuitBreaker, TripRule\n"
        "def ask(snapshot):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "breaker = CircuitBreaker('b', trip_if=TripRule(ask, when='verdict'))\n"
        "guarded = breaker(len)\n"
        "try:\n"
        "    print(guarded('xy'))\n"
        "    for _ in range(100): pass\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "interrupted"


def test_a_stale_verdict_asks_no_rule(clock):
    asked = []
    breaker = CircuitBreaker("rules", clock=clock, trip_if=lambda s: asked.append(1))
    late = breaker.attempt()
    breaker.reset()
    late.failure()
    assert asked == []


@pytest.mark.parametrize(
    ("given", "field"),
    [(3, "trip_if"), ((succeed, "x"), "trip_if")],
)
def test_what_is_no_rule_is_refused(given, field):
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("rules", trip_if=given)
    assert caught.value.field == field


def test_a_rule_at_another_moment_is_refused():
    with pytest.raises(ConfigError, match="'admission'"):
        TripRule(succeed, when="later")


def test_a_snapshot_is_what_a_rule_gets(clock):
    seen: list[BreakerSnapshot] = []
    breaker = CircuitBreaker("rules", clock=clock, trip_if=seen.append)
    fail_times(breaker, 1)
    assert isinstance(seen[0], BreakerSnapshot)
    assert (seen[0].name, seen[0].failure_count) == ("rules", 1)


# --- pile_up --------------------------------------------------------------------------------------


def test_a_pile_up_opens_when_a_call_comes_while_so_many_run(clock):
    breaker = CircuitBreaker("pile", clock=clock, trip_if=pile_up(2))
    running = [breaker.attempt(), breaker.attempt()]
    assert breaker.snapshot().in_flight == 2
    with pytest.raises(CircuitOpenError, match="2 calls in flight"):
        breaker.attempt()
    assert breaker.snapshot().cause == "custom"
    for attempt in running:
        attempt.success()
    assert breaker.snapshot().in_flight == 0


def test_calls_that_ended_do_not_pile_up_whatever_became_of_them(clock):
    breaker = CircuitBreaker("pile", None, clock=clock, trip_if=pile_up(1))
    guarded = breaker(fail)

    @breaker
    async def coroutine(then):
        await then()

    async def cancelled():
        raise asyncio.CancelledError

    for _ in range(3):
        with pytest.raises(Boom):
            guarded()
        breaker.attempt().neutral()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(coroutine(cancelled))
        dropped = coroutine(cancelled)
        dropped.close()
        assert breaker.call(succeed) == "ok"
    assert breaker.state is State.closed
    assert breaker.snapshot().in_flight == 0


def test_hung_coroutines_pile_up(clock):
    breaker = CircuitBreaker("pile", clock=clock, trip_if=pile_up(10))

    @breaker
    async def hang():
        await asyncio.sleep(3600)

    async def main():
        tasks = [asyncio.ensure_future(hang()) for _ in range(50)]
        done, running = await asyncio.wait(tasks, timeout=0.2)
        for task in running:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done, running

    done, running = asyncio.run(main())
    assert (len(done), len(running)) == (40, 10)
    assert all(isinstance(task.exception(), CircuitOpenError) for task in done)
    assert breaker.snapshot().in_flight == 0


def test_threads_in_flight_are_counted_exactly(clock):
    breaker = CircuitBreaker("pile", clock=clock, trip_if=pile_up(1000))
    guarded = breaker(succeed)

    def work():
        for _ in range(2000):
            guarded()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.snapshot().in_flight == 0
    assert breaker.state is State.closed


@pytest.mark.parametrize("given", [0, -1, 1.5, True, None])
def test_a_pile_up_of_another_size_is_refused(given):
    with pytest.raises(ConfigError, match="max_in_flight"):
        pile_up(given)


# --- budget ---------------------------------------------------------------------------------------


def test_a_budget_opens_when_calls_cost_more_than_it_allows(clock):
    breaker = CircuitBreaker(
        "budget", clock=clock, trip_if=budget(100, 60, cost_of=lambda tokens: tokens)
    )
    guarded = breaker(lambda tokens: tokens)
    guarded(60)
    guarded(40)
    assert breaker.state is State.closed
    assert guarded(1) == 1
    assert breaker.snapshot().detail == "spent 101 of 100 in 60 s"


def test_a_budget_forgets_what_was_spent_a_period_ago(clock):
    breaker = CircuitBreaker("budget", clock=clock, trip_if=budget(2, 60))
    for _ in range(10):
        assert admitted(breaker)
        clock.advance(30.1)
    assert breaker.state is State.closed


def test_what_opened_the_circuit_does_not_open_it_again(clock):
    breaker = CircuitBreaker("budget", clock=clock, trip_if=budget(2, 3600))
    for _ in range(3):
        assert admitted(breaker)
    assert breaker.state is State.open
    clock.advance(60)
    for _ in range(3):
        assert admitted(breaker)
    assert breaker.state is State.closed


def test_a_failure_costs_too(clock):
    breaker = CircuitBreaker("budget", clock=clock, trip_if=budget(2, 60))
    fail_times(breaker, 3)
    assert breaker.snapshot().cause == "custom"


def test_a_budget_pickles_without_what_was_spent():
    rule = pickle.loads(pickle.dumps(budget(5, 60)))
    breaker = CircuitBreaker("budget", trip_if=rule)
    assert admitted(breaker)


def test_a_budget_may_be_asked_by_a_signal_handler_in_the_middle_of_itself(clock):
    rule = budget(10, 60)
    breaker = CircuitBreaker("budget", clock=clock, trip_if=rule)
    with rule._lock:
        assert admitted(breaker)


def test_a_cost_that_is_no_number_counts_as_none(clock):
    breaker = CircuitBreaker(
        "budget", clock=clock, trip_if=budget(10, 60, cost_of=lambda result: float("nan"))
    )
    for _ in range(3):
        assert admitted(breaker)
    assert breaker.state is State.closed


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((0, 60), "cost"),
        ((float("nan"), 60), "cost"),
        ((5, 0.5), "per_seconds"),
        ((5, float("inf")), "per_seconds"),
    ],
)
def test_a_budget_out_of_its_range_is_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        budget(*arguments)
    assert caught.value.field == field


def test_a_cost_that_is_no_function_is_refused():
    with pytest.raises(ConfigError, match="cost_of"):
        budget(5, 60, cost_of=3)
