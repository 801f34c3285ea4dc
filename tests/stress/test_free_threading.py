"""Without a GIL: it stays off, and what threads share counts exactly and survives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State, pile_up
from memguard_native.breaker import registry
from memguard_native.testing import ManualClock

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


without_gil = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL"
)


@without_gil
def test_importing_the_package_leaves_the_gil_off():
    code = (
        "import sys\n"
        "assert not sys._is_gil_enabled(), 'it was on before'\n"
        "import memguard_native\n"
        "for name in memguard_native.__all__: getattr(memguard_native, name)\n"
        "memguard_native.CircuitBreaker('x')(len)('x')\n"
        "assert not sys._is_gil_enabled(), 'it is on now'\n"
    )
    # PYTHON_GIL=0 would keep it off, whatever the package asks for.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@without_gil
def test_these_tests_run_without_the_gil():
    """A module that some plugin imports may have asked for it."""
    assert not sys._is_gil_enabled()


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


# --- every form of a call, half of them failures -------------------------------------------------


def call_functions(breaker: CircuitBreaker) -> None:
    @breaker
    def answer(turn: int) -> None:
        if turn % 2:
            raise Boom

    for turn in range(CALLS // 10):
        with suppress(Boom):
            answer(turn)


def iterate(breaker: CircuitBreaker) -> None:
    @breaker
    def answers(turn: int) -> Iterator[int]:
        yield turn
        if turn % 2:
            raise Boom

    for turn in range(CALLS // 10):
        with suppress(Boom):
            assert list(answers(turn)) == [turn]


def enter_blocks(breaker: CircuitBreaker) -> None:
    for turn in range(CALLS // 10):
        with suppress(Boom), breaker:
            if turn % 2:
                raise Boom


def settle_attempts(breaker: CircuitBreaker) -> None:
    for turn in range(CALLS // 10):
        attempt = breaker.attempt()
        attempt.failure() if turn % 2 else attempt.success()


def await_coroutines(breaker: CircuitBreaker) -> None:
    @breaker
    async def answer(turn: int) -> int:
        await asyncio.sleep(0)
        if turn % 2:
            raise Boom
        return turn

    async def main() -> None:
        for first in range(0, CALLS // 10, 50):
            turns = range(first, first + 50)
            found = await asyncio.gather(*map(answer, turns), return_exceptions=True)
            assert [one for one in found if isinstance(one, int)] == list(turns[::2])

    asyncio.run(main())


def iterate_asynchronously(breaker: CircuitBreaker) -> None:
    @breaker
    async def answers(turn: int) -> AsyncIterator[int]:
        await asyncio.sleep(0)
        yield turn
        if turn % 2:
            raise Boom

    async def main() -> None:
        for turn in range(CALLS // 10):
            with suppress(Boom):
                assert [one async for one in answers(turn)] == [turn]

    asyncio.run(main())


@pytest.mark.parametrize(
    "work",
    [
        call_functions,
        iterate,
        enter_blocks,
        settle_attempts,
        await_coroutines,
        iterate_asynchronously,
    ],
)
def test_successes_and_failures_of_every_form_are_counted_exactly(work):
    breaker = CircuitBreaker("forms", None, count_calls=True)
    together(lambda number: work(breaker))
    found = breaker.snapshot()
    assert (found.successes, found.failures) == (THREADS * CALLS // 20,) * 2


def test_one_of_several_loops_right_after_the_timeout_makes_the_probe():
    for _ in range(50):
        clock = ManualClock()
        breaker = CircuitBreaker("probe", clock=clock)
        breaker.trip()
        clock.advance(60)
        rejections = threading.Semaphore(0)
        probes: list[int] = []

        @breaker
        async def probe(number: int, probes=probes, rejections=rejections) -> None:
            probes.append(number)
            for _ in range(THREADS - 1):
                while not rejections.acquire(blocking=False):
                    await asyncio.sleep(0)

        def work(number: int, probe=probe, rejections=rejections) -> None:
            try:
                asyncio.run(probe(number))
            except CircuitOpenError:
                rejections.release()

        together(work)
        assert len(probes) == 1
        assert breaker.state is State.closed


# --- what changes under the hands of others ------------------------------------------------------


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
