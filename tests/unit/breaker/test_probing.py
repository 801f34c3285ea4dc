"""The active probe: run away from the calls, when it is due, judged as a call is."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, ConfigError, State
from memguard_native.breaker import events, probing

from .calls import Boom, admitted, fail_times, succeed


class Dependency:
    """Answers a probe by what is set; counts how often it was asked."""

    def __init__(self):
        self.asked = 0
        self.answer = "pong"
        self.was_asked = threading.Event()

    def probe(self):
        self.asked += 1
        self.was_asked.set()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def dependency():
    return Dependency()


def probed(clock, dependency, **rules):
    return CircuitBreaker("probed", 1, clock=clock, probe=dependency.probe, **rules)


def wait_for(condition):
    """Until the event thread and the probe's thread did their work, at most 10 seconds."""
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def test_the_prober_closes_the_circuit_and_no_call_is_a_probe(clock, dependency):
    breaker = probed(clock, dependency)
    fail_times(breaker, 1)
    clock.advance(60)
    assert not admitted(breaker)
    assert wait_for(lambda: breaker.state is State.closed)
    assert dependency.asked == 1
    assert admitted(breaker)


def test_before_the_open_period_is_over_nobody_probes(clock, dependency):
    breaker = probed(clock, dependency)
    fail_times(breaker, 1)
    clock.advance(59)
    assert events.flush()
    assert dependency.asked == 0
    assert breaker.state is State.open


def test_a_call_that_waits_for_the_prober_is_told_when_to_come_back(clock, dependency):
    breaker = probed(clock, dependency, monitor_interval=2.0)
    dependency.answer = Boom()
    fail_times(breaker, 1)
    clock.advance(60)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.retry_after > 0
    assert breaker.state in (State.open, State.half_open)


def test_without_any_call_the_monitor_looks_by_itself(clock, dependency):
    breaker = probed(clock, dependency, monitor_interval=0.05)
    fail_times(breaker, 1)
    clock.advance(60)
    assert wait_for(lambda: breaker.state is State.closed)


def test_a_probe_that_fails_opens_again(clock, dependency):
    dependency.answer = Boom("still down")
    breaker = probed(clock, dependency)
    fail_times(breaker, 1)
    clock.advance(60)
    assert not admitted(breaker)
    assert wait_for(lambda: breaker.snapshot().step == 1)
    assert breaker.state is State.open
    assert breaker.snapshot().last_error == ("Boom", "still down")


def test_the_result_of_a_probe_is_judged_as_one_of_a_call(clock, dependency):
    dependency.answer = "degraded"
    breaker = probed(clock, dependency, failure_if_result=lambda result: result == "degraded")
    fail_times(breaker, 1)
    clock.advance(60)
    probing.run(breaker._core, breaker.config)
    assert breaker.state is State.open
    assert breaker.snapshot().step == 1


def test_it_probes_as_often_as_it_needs_successes(clock, dependency):
    breaker = probed(clock, dependency, success_threshold=3)
    fail_times(breaker, 1)
    clock.advance(60)
    probing.run(breaker._core, breaker.config)
    assert breaker.state is State.closed
    assert dependency.asked == 3


def test_a_probe_may_be_a_coroutine_function(clock):
    async def ping():
        return "pong"

    breaker = CircuitBreaker("probed", 1, clock=clock, probe=ping)
    fail_times(breaker, 1)
    clock.advance(60)
    probing.run(breaker._core, breaker.config)
    assert breaker.state is State.closed


def test_a_probe_may_go_through_the_breaker_that_it_probes(clock):
    breaker: CircuitBreaker = CircuitBreaker(
        "probed", 1, clock=clock, probe=lambda: breaker.call(succeed)
    )
    fail_times(breaker, 1)
    clock.advance(60)
    probing.run(breaker._core, breaker.config)
    assert breaker.state is State.closed


def test_a_probe_that_hangs_blocks_neither_events_nor_other_probes(clock, dependency):
    release = threading.Event()
    hanging = CircuitBreaker("hangs", 1, clock=clock, probe=lambda: release.wait(30))
    other = probed(clock, dependency)
    fail_times(hanging, 1)
    fail_times(other, 1)
    clock.advance(60)
    assert not admitted(hanging)
    assert not admitted(other)
    assert wait_for(lambda: other.state is State.closed)
    assert events.flush()
    assert hanging.state is State.half_open
    release.set()
    assert wait_for(lambda: hanging.state is State.closed)


def test_a_probe_whose_lease_is_over_is_replaced_and_its_verdict_is_stale(clock):
    release = threading.Event()
    begun = threading.Semaphore(0)

    def hang():
        begun.release()
        release.wait(30)
        raise Boom

    breaker = CircuitBreaker("hangs", 1, clock=clock, probe=hang)
    fail_times(breaker, 1)
    clock.advance(60)
    assert not admitted(breaker)
    assert begun.acquire(timeout=10)
    clock.advance(61)
    assert not admitted(breaker)
    assert begun.acquire(timeout=10)
    release.set()
    assert wait_for(lambda: breaker.snapshot().stale == 1 and breaker.state is State.open)


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_lost_probe_may_open_again_whoever_finds_it(clock, is_asked):
    release = threading.Event()
    begun = threading.Semaphore(0)

    def hang():
        begun.release()
        release.wait(30)

    breaker = CircuitBreaker("lost", 1, clock=clock, probe=hang, probe_expiry="failure")
    fail_times(breaker, 1)
    clock.advance(60)
    assert not admitted(breaker)
    assert begun.acquire(timeout=10)
    clock.advance(61)
    if is_asked:
        assert not admitted(breaker)
    else:
        assert events.flush()
    assert wait_for(lambda: breaker.snapshot().step == 1)
    release.set()


def test_a_predicate_that_raises_counts_as_absent_for_probes_too(clock, dependency):
    breaker = probed(clock, dependency, failure_if_result=lambda result: 1 / 0)
    fail_times(breaker, 1)
    clock.advance(60)
    probing.run(breaker._core, breaker.config)
    assert breaker.state is State.closed


def test_only_so_many_hung_probes_are_left_behind(clock, caplog):
    release = threading.Event()
    begun = threading.Semaphore(0)

    def hang():
        begun.release()
        release.wait(60)

    breaker = CircuitBreaker("hangs", 1, clock=clock, probe=hang)
    fail_times(breaker, 1)
    with caplog.at_level(logging.ERROR, "memguard_native.breaker"):
        for _ in range(4):
            clock.advance(61)
            admitted(breaker)
            assert begun.acquire(timeout=10)
        clock.advance(61)
        assert not admitted(breaker)
        assert events.flush()
    assert not begun.acquire(blocking=False)
    # As nobody else can, calls probe.
    assert admitted(breaker)
    assert breaker.state is State.closed
    assert sum("hang" in record.message for record in caplog.records) == 1
    release.set()


def test_a_probe_can_be_set_and_taken_away_later(clock, dependency):
    breaker = CircuitBreaker("probed", 1, clock=clock)
    breaker.configure(probe=dependency.probe)
    fail_times(breaker, 1)
    clock.advance(60)
    assert not admitted(breaker)
    assert wait_for(lambda: breaker.state is State.closed)
    breaker.configure(probe=None)
    fail_times(breaker, 1)
    clock.advance(60)
    assert admitted(breaker)
    assert dependency.asked == 1


def test_a_breaker_with_a_probe_can_be_collected(clock, dependency):
    gone = weakref.ref(probed(clock, dependency))
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_probes_for_itself(clock, dependency):
    breaker = probed(clock, dependency)
    fail_times(breaker, 1)
    assert events.flush()
    clock.advance(60)
    child = os.fork()
    if child == 0:
        rejected = not admitted(breaker)
        closed = wait_for(lambda: breaker.state is State.closed)
        os._exit(0 if rejected and closed else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    ("rules", "field"), [({"probe": 3}, "probe"), ({"monitor_interval": 0}, "monitor_interval")]
)
def test_a_bad_probe_is_refused(rules, field):
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("probed", **rules)
    assert caught.value.field == field
