"""Events: told once, in order, off the calls' path; listeners cannot do harm."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import subprocess
import sys
import threading

import pytest

from memguard_native import BreakerConfig, CircuitBreaker, State, _core
from memguard_native.breaker import events
from memguard_native.breaker.policy import policy_of

from .calls import Boom, admitted, fail, fail_times, succeed


@pytest.fixture
def heard():
    """Every event of a breaker whose name begins with "events"."""
    assert events.flush()  # what earlier tests left behind
    told: list[events.BreakerEvent] = []
    stop = events.subscribe(lambda e: told.append(e) if e.breaker.startswith("events") else None)
    yield told
    stop()


def kinds(told):
    assert events.flush()
    return [
        (event.from_state, event.to_state, event.reason)
        for event in told
        if event.reason != "summary"
    ]


def test_every_transition_is_one_event_in_order(heard, clock):
    breaker = CircuitBreaker("events", 2, clock=clock)
    fail_times(breaker, 2)
    clock.advance(60)
    fail_times(breaker, 1)
    clock.advance(60)
    assert admitted(breaker)
    breaker.force_open()
    breaker.auto()
    breaker.disable()
    breaker.reset()
    assert kinds(heard) == [
        ("closed", "open", "consecutive_failures"),
        ("open", "half_open", "timeout"),
        ("half_open", "open", "probe_failed"),
        ("open", "half_open", "timeout"),
        ("half_open", "closed", "probe_succeeded"),
        ("closed", "forced_open", "manual"),
        ("forced_open", "open", "manual"),
        ("open", "disabled", "manual"),
        ("disabled", "closed", "reset"),
    ]
    assert [event.generation for event in heard] == list(range(1, 10))
    assert {event.pid for event in heard} == {os.getpid()}
    assert heard[0].at_ns == round(clock.now() * 1e9) - 120 * 10**9
    assert pickle.loads(pickle.dumps(heard[0])) == heard[0]


def test_a_lost_probe_and_inconclusive_probes_are_events(heard, clock):
    breaker = CircuitBreaker("events", 1, clock=clock)
    fail_times(breaker, 1)
    clock.advance(60)
    hung = breaker.attempt()
    clock.advance(61)
    for _ in range(3):
        breaker.attempt().neutral()
    hung.success()
    assert [kind[2] for kind in kinds(heard)] == [
        "consecutive_failures",
        "timeout",
        "probe_lost",
        "inconclusive",
    ]


def test_many_threads_that_fail_together_make_one_event(heard):
    breaker = CircuitBreaker("events", 8)
    attempts = [breaker.attempt() for _ in range(8)]
    start = threading.Barrier(8)

    def work(attempt):
        start.wait()
        attempt.failure()

    threads = [threading.Thread(target=work, args=(attempt,)) for attempt in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(heard) == [("closed", "open", "consecutive_failures")]


def test_counting_and_rejecting_are_no_events(heard, clock):
    breaker = CircuitBreaker("events", clock=clock)
    fail_times(breaker, 4)
    assert admitted(breaker)
    breaker.trip()
    for _ in range(100):
        assert not admitted(breaker)
    assert kinds(heard) == [("closed", "open", "manual")]


def test_a_listener_of_one_breaker_hears_that_one_alone(clock):
    told = []
    breaker = CircuitBreaker("events one", clock=clock, on_event=told.append)
    other = CircuitBreaker("events other", clock=clock)
    other.trip()
    breaker.trip()
    assert kinds(told) == [("closed", "open", "manual")]


def test_a_listener_that_raises_is_logged_once_and_the_others_are_told(heard, caplog):
    breaker = CircuitBreaker("events", on_event=lambda event: 1 / 0)
    with caplog.at_level(logging.ERROR, "memguard_native.breaker"):
        for _ in range(3):
            breaker.trip()
        assert len(kinds(heard)) == 3
    assert len(caplog.records) == 1


def test_a_listener_that_blocks_blocks_no_call(heard):
    release = threading.Event()
    breaker = CircuitBreaker("events", on_event=lambda event: release.wait(10))
    for _ in range(3):
        breaker.trip()
        breaker.reset()
    assert breaker.call(succeed) == "ok"
    release.set()
    assert len(kinds(heard)) == 6


def test_a_listener_may_use_the_breaker(clock):
    states = []

    def listener(event):
        states.append(breaker.state)
        if event.to_state == "open":
            breaker.reset()

    breaker = CircuitBreaker("events", 1, clock=clock, on_event=listener)
    fail_times(breaker, 1)
    assert events.flush()
    assert events.flush()
    assert states[0] is State.open
    assert breaker.state is State.closed


def test_inline_events_are_told_before_the_call_goes_on(clock):
    told = []

    def listener(event):
        told.append((threading.current_thread().name, event.reason))
        raise Boom

    breaker = CircuitBreaker("b", 1, clock=clock, on_event=listener, inline_events=True)
    with pytest.raises(Boom, match="no answer"):
        breaker.call(fail)
    assert told == [(threading.current_thread().name, "consecutive_failures")]


def test_events_that_outran_a_slow_listener_are_counted():
    release = threading.Event()
    entered = threading.Event()
    told = []

    def slow(event):
        told.append(event.generation)
        entered.set()
        release.wait(10)

    breaker = CircuitBreaker("events", on_event=slow)
    assert events.flush()
    lost_before = events.lost()
    breaker.reset()
    assert entered.wait(5)
    for _ in range(3000):
        breaker.reset()
    release.set()
    assert events.flush()
    assert len(told) + events.lost() - lost_before == 3001
    assert told == sorted(told)
    assert told[-1] == 3001


def test_events_carry_the_name_of_a_breaker_that_is_gone(heard):
    breaker = CircuitBreaker("events of the dead")
    breaker.trip()
    del breaker
    gc.collect()
    assert events.flush()
    assert [event.breaker for event in heard] == ["events of the dead"]


def test_a_listener_does_not_keep_its_breaker_alive():
    class Client:
        def __init__(self) -> None:
            self.breaker = CircuitBreaker("events: cycle", on_event=self.listen)

        def listen(self, event: events.BreakerEvent) -> None: ...

    from memguard_native.breaker import registry

    Client()
    gc.collect()
    assert registry.get("events: cycle") is None


def test_unsubscribing_twice_is_fine():
    assert events.flush()  # what earlier tests left behind
    told: list[events.BreakerEvent] = []
    stop = events.subscribe(told.append)
    stop()
    stop()
    CircuitBreaker("events").trip()
    assert events.flush()
    assert told == []


# --- logging --------------------------------------------------------------------------------------


def test_the_detail_of_an_event_reaches_the_listener(heard, clock):
    breaker = CircuitBreaker("events", clock=clock, trip_if=lambda snapshot: "too much")
    fail_times(breaker, 1)
    assert events.flush()
    assert [(one.reason, one.detail) for one in heard] == [("custom", "too much")]


def test_events_are_told_in_order_while_an_error_is_described(heard, clock):
    class Slow(Exception):
        def __str__(self):
            breaker.reset()
            return "slow"

    def fail_slowly():
        raise Slow

    breaker = CircuitBreaker("events", 1, clock=clock)
    with pytest.raises(Slow):
        breaker.call(fail_slowly)
    assert kinds(heard) == [
        ("closed", "open", "consecutive_failures"),
        ("open", "closed", "reset"),
    ]


def test_why_it_opened_is_told_of_the_newest_opening(clock):
    class Slow(Exception):
        def __str__(self):
            breaker.reset()
            breaker.trip(reason="newer")
            return "older"

    def fail_slowly():
        raise Slow

    breaker = CircuitBreaker("events", 1, clock=clock)
    with pytest.raises(Slow):
        breaker.call(fail_slowly)
    assert (breaker.snapshot().cause, breaker.snapshot().detail) == ("manual", "newer")


def test_events_that_overtook_each_other_are_sorted_by_breaker():
    told = [(1, 5), (2, 9), (1, 4), (2, 8), (1, 6)]
    assert events.in_order(told) == [(1, 4), (2, 8), (1, 5), (2, 9), (1, 6)]


def test_an_event_thread_that_could_not_start_is_tried_again(monkeypatch):
    deliverer = events._Deliverer()
    started = []

    class Thread:
        def __init__(self, **arguments):
            pass

        def start(self):
            started.append(1)
            if len(started) == 1:
                raise RuntimeError("can't start new thread")

    monkeypatch.setattr(events.threading, "Thread", Thread)
    core = _core.Breaker(
        name="x", policy=policy_of(BreakerConfig(name="x")), clock=None, events=deliverer.queue
    )
    core.reset()
    core.reset()
    assert len(started) == 2


def test_details_of_events_that_were_lost_are_forgotten(clock):
    queue = _core.EventQueue(lambda: None)
    core = _core.Breaker(
        name="x", policy=policy_of(BreakerConfig(name="x")), clock=clock, events=queue
    )
    for number in range(3000):
        core.trip(None, f"trip {number}")
    told, position, lost, _ = queue.read(after=0, skip=False)
    while told:
        newest = told[-1]
        assert all(one[-1] is not None for one in told)
        told, position, _, _ = queue.read(after=position, skip=False)
    assert lost == 3000 - 1024
    assert newest[-1] == "trip 2999"


# --- summaries ------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    """The event thread sums nothing up meanwhile."""
    monkeypatch.setattr(events._deliverer, "_tasks", [])


def summary_of(breaker, heard):
    found = [one for one in heard if one.reason == "summary" and one.breaker == breaker.name]
    return [(one.rejections, one.slow_calls, one.stale) for one in found]


def test_rejections_slow_calls_and_stale_results_are_summed_up(heard, clock, alone):
    now = [100.0]
    summaries = events.Summaries(clock=lambda: now[0])
    breaker = CircuitBreaker("events summed", clock=clock, slow_rate=1.0, slow_call_duration=1.0)
    slow, late = breaker.attempt(), breaker.attempt()
    clock.advance(1)
    slow.success()
    breaker.trip()
    late.success()
    for _ in range(7):
        assert not admitted(breaker)
    summaries()
    assert summary_of(breaker, heard) == [(7, 2, 1)]
    event = next(one for one in heard if one.reason == "summary" and one.rejections == 7)
    assert (event.from_state, event.to_state, event.pid) == ("open", "open", os.getpid())


def test_there_is_at_most_one_summary_per_breaker_and_second(heard, clock, alone):
    now = [100.0]
    summaries = events.Summaries(clock=lambda: now[0])
    breaker = CircuitBreaker("events summed", clock=clock)
    breaker.trip()
    for _ in range(5):
        assert not admitted(breaker)
        summaries()
        now[0] += 0.25
    assert summary_of(breaker, heard) == [(1, 0, 0), (4, 0, 0)]
    now[0] += 5
    summaries()
    assert len(summary_of(breaker, heard)) == 2


def test_nothing_is_summed_up_for_the_log_alone(clock, alone, monkeypatch):
    breaker = CircuitBreaker("unheard", clock=clock)
    breaker.trip()
    assert not admitted(breaker)
    assert events.flush()
    told = []
    monkeypatch.setattr(events, "_tell", lambda *event: told.append(event))
    events.Summaries()()
    assert told == []


# --- processes ------------------------------------------------------------------------------------


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_thread_exists_before_the_first_event():
    printed = run(
        "import threading\n"
        "from memguard_native import CircuitBreaker\n"
        "breaker = CircuitBreaker('b', on_event=lambda event: None)\n"
        "breaker.call(len, 'x')\n"
        "print(threading.active_count())\n"
        "breaker.trip()\n"
        "print(threading.active_count())\n"
    )
    assert printed.split() == ["1", "2"]


def test_what_happened_last_is_told_before_the_process_ends():
    printed = run(
        "from memguard_native import CircuitBreaker\n"
        "breaker = CircuitBreaker('b', on_event=lambda event: print(event.to_state))\n"
        "breaker.trip()\n"
    )
    assert printed.split() == ["open"]


def test_a_forked_child_tells_its_own_events_and_not_its_parents():
    printed = run(
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from memguard_native import CircuitBreaker\n"
        "from memguard_native.breaker import events\n"
        "told = []\n"
        "breaker = CircuitBreaker('b', on_event=told.append)\n"
        "breaker.trip()\n"
        "events.flush()\n"
        "breaker.force_open()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    told.clear()\n"
        "    breaker.reset()\n"
        "    assert events.flush()\n"
        "    ours = [(e.reason, e.pid == os.getpid()) for e in told]\n"
        "    os._exit(0 if ours == [('reset', True)] else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "assert events.flush()\n"
        "print(len(told))\n"
    )
    assert printed.split() == ["0", "2"]
