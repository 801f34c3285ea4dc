"""Without a GIL: it stays off, and guarded functions that threads share count exactly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable

import pytest

from memguard_native import CircuitBreaker, State, pile_up
from memguard_native.breaker import registry

pytestmark = pytest.mark.stress

THREADS = 4
CALLS = 20_000


class Boom(Exception):
    pass


def together(work: Callable[[int], None]) -> None:
    """Run `work(number)` on THREADS threads that start at once; what one raises fails the test."""
    barrier = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL"
)
def test_importing_the_package_leaves_the_gil_off():
    code = (
        "import sys, memguard_native\n"
        "from memguard_native import CircuitBreaker\n"
        "CircuitBreaker('x')(len)('x')\n"
        "sys.exit(sys._is_gil_enabled())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, timeout=60, check=False
    )
    assert done.returncode == 0


def test_successes_of_all_threads_are_counted_exactly():
    breaker = CircuitBreaker("count", count_calls=True, time_window=60.0, failure_rate=1.0)
    guarded = breaker(len)
    together(lambda number: [guarded("x") for _ in range(CALLS)])
    assert breaker.snapshot().successes == THREADS * CALLS


def test_failures_of_all_threads_are_counted_exactly():
    breaker = CircuitBreaker("fail", None, count_calls=True)

    @breaker
    def fail() -> None:
        raise Boom

    def work(number: int) -> None:
        for _ in range(CALLS // 10):
            with pytest.raises(Boom):
                fail()

    together(work)
    found = breaker.snapshot()
    assert (found.failures, found.failure_count) == (THREADS * CALLS // 10,) * 2


def test_coroutines_of_several_loops_are_counted_exactly():
    breaker = CircuitBreaker("async", count_calls=True)

    @breaker
    async def answer() -> int:
        await asyncio.sleep(0)
        return 1

    async def main() -> None:
        for _ in range(CALLS // 10):
            assert await answer() == 1

    together(lambda number: asyncio.run(main()))
    assert breaker.snapshot().successes == THREADS * CALLS // 10


def test_calls_in_flight_are_none_after_all_ended():
    breaker = CircuitBreaker("flight", None, trip_if=pile_up(1_000_000))
    guarded = breaker(len)
    together(lambda number: [guarded("x") for _ in range(CALLS // 10)])
    assert breaker.snapshot().in_flight == 0


def test_rules_change_under_calls_of_all_threads():
    breaker = CircuitBreaker("configure", 2**31 - 1)
    guarded = breaker(len)
    done = threading.Event()

    def work(number: int) -> None:
        if number > 0:
            while not done.is_set():
                assert guarded("x") == 1
            return
        for turn in range(200):
            breaker.configure(
                count_calls=turn % 2 == 0 or None,
                failure_if_result=None if turn % 3 else (lambda result: False),
                count_window=10 + turn % 5,
            )
        done.set()

    together(work)
    assert breaker.state is State.closed


def test_guards_come_and_go_while_rules_change():
    breaker = CircuitBreaker("guards", 2**31 - 1)

    def work(number: int) -> None:
        for turn in range(300):
            if number == 0:
                breaker.configure(failure_threshold=1000 + turn % 7)
            else:
                assert breaker(len)("x") == 1

    together(work)


def test_snapshots_are_taken_while_rules_change():
    breaker = CircuitBreaker("snapshots", count_calls=True)
    done = threading.Event()

    def work(number: int) -> None:
        if number > 0:
            while not done.is_set():
                assert breaker.snapshot().successes == 0
            return
        for turn in range(500):
            breaker.configure(failure_threshold=10 + turn)
        done.set()

    together(work)


def test_breakers_are_listed_while_others_come_and_go():
    kept = CircuitBreaker("listed")
    done = threading.Event()

    def work(number: int) -> None:
        if number > 0:
            while not done.is_set():
                assert kept in registry.breakers()
            return
        for turn in range(2000):
            CircuitBreaker(f"come and gone {turn % 50}")
        done.set()

    together(work)


INSIDE_A_PROBE = """
import contextvars, threading
from contextlib import suppress
from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native.testing import ManualClock

clock = ManualClock()
breaker = CircuitBreaker("inside", clock=clock)
guarded = breaker(len)
for turn in range(2000):
    breaker.trip()
    clock.advance(60)
    attempt = breaker.attempt()
    start = threading.Barrier(3)

    def call(context):
        start.wait()
        for _ in range(60):
            # Rejected is right where the probe ended between the two looks of the call.
            with suppress(CircuitOpenError):
                assert context.run(guarded, "x") == 1

    contexts = [contextvars.copy_context() for _ in range(2)]
    threads = [threading.Thread(target=call, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    start.wait()
    for _ in range(turn % 40):
        pass
    attempt.success()
    for thread in threads:
        thread.join()
    assert breaker.state is State.closed
"""


def test_a_probe_ends_while_other_threads_call_inside_of_it():
    # Without the debug allocator what was freed a moment ago is still there, most of the time.
    done = subprocess.run(
        [sys.executable, "-c", INSIDE_A_PROBE],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONMALLOC": "debug"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
