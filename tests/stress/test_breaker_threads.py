"""The breaker under real threads: a barrier starts them together, and what happened is counted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native._core import ManualClock

pytestmark = pytest.mark.stress

THREADS = 20


class Boom(Exception):
    pass


@pytest.fixture(autouse=True)
def switch_threads_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[], object], threads: int = THREADS) -> list[object]:
    """Run `work` on so many threads that start at once; their results, or what they raised."""
    barrier = threading.Barrier(threads)
    outcomes: list[object] = []

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(work())
        except Exception as error:
            outcomes.append(error)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return outcomes


def open_and_due(clock: ManualClock) -> CircuitBreaker:
    breaker = CircuitBreaker("stress", clock=clock)
    breaker.trip()
    clock.advance(60)
    return breaker


def test_twenty_threads_right_after_the_timeout_make_exactly_one_probe():
    for _ in range(50):
        breaker = open_and_due(ManualClock())
        gate = threading.Event()
        ran: list[int] = []
        rejected = threading.Semaphore(0)

        @breaker
        def probe(ran=ran, gate=gate):
            ran.append(1)
            gate.wait(10)

        def attempt(probe=probe, rejected=rejected):
            try:
                probe()
            except CircuitOpenError:
                rejected.release()
                raise

        def open_the_gate(rejected=rejected, gate=gate):
            for _ in range(THREADS - 1):
                assert rejected.acquire(timeout=10)
            gate.set()

        opener = threading.Thread(target=open_the_gate)
        opener.start()
        outcomes = together(attempt)
        opener.join()
        assert len(ran) == 1
        assert sum(isinstance(outcome, CircuitOpenError) for outcome in outcomes) == THREADS - 1
        assert breaker.state is State.closed


def test_as_many_failing_threads_as_the_threshold_open_the_circuit_once():
    for _ in range(50):
        breaker = CircuitBreaker("stress", THREADS, clock=ManualClock())

        @breaker
        def fail():
            raise Boom

        outcomes = together(fail)
        assert {type(outcome) for outcome in outcomes} == {Boom}
        assert breaker.state is State.open
        assert breaker.failure_count == THREADS


def test_one_failure_fewer_than_the_threshold_leaves_it_closed():
    breaker = CircuitBreaker("stress", THREADS + 1, clock=ManualClock())

    @breaker
    def fail():
        raise Boom

    together(fail)
    assert (breaker.state, breaker.failure_count) == (State.closed, THREADS)


def test_calls_run_side_by_side():
    breaker = CircuitBreaker("stress")
    inside = threading.Barrier(8)

    @breaker
    def meet():
        inside.wait(10)  # returns only if all eight are inside of the guard at once
        return True

    assert together(meet, threads=8) == [True] * 8


def test_calls_of_many_threads_are_in_the_window_exactly():
    breaker = CircuitBreaker("window", None, failure_rate=1.0, count_window=10_000)
    guarded = breaker(len)

    def work() -> None:
        for _ in range(2000):
            guarded("x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.snapshot().window_calls == 8000
