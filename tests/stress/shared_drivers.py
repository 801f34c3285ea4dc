"""Programs of several processes that share a breaker; each test runs one of them by name.

    python shared_drivers.py NAME ROUNDS

Each forks its processes from a small parent, checks by exact counts, and prints what it counted as
JSON. $MEMGUARD_DIR names the directory, as for any process.
"""

# ruff: noqa: B023 - functions that loops define are called before the loop goes on

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native.breaker import registry
from memguard_native.memory.sample import MemorySample
from memguard_native.segment import attach

NAME = "shared"
PATIENCE = 30.0
LEASE = 0.2


def words(count: int) -> Any:
    """Numbers that forked processes share."""
    return (ctypes.c_uint64 * count).from_buffer(mmap.mmap(-1, 8 * count))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0)


def in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return pid


def end(pid: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"a child ended with {status}"


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with suppress(ZeroDivisionError):
            breaker.call(lambda: 1 / 0)


# --- programs -------------------------------------------------------------------------------------


def failures_add_up(processes: int) -> dict[str, Any]:
    """As many processes fail once each as the threshold says: the last failure opens it for all."""
    breaker = CircuitBreaker(NAME, processes, scope="host")
    for number in range(processes):
        assert breaker.state is State.closed, number
        end(in_child(lambda: fail(breaker)))
    assert breaker.state is State.open
    found = breaker.snapshot()
    return {"failures": found.failures, "transitions": found.transitions, "state": found.state}


def one_probe_a_round(rounds: int, processes: int = 8) -> dict[str, Any]:
    """Eight processes ask at once for the probe of each round: one gets it."""
    breaker = CircuitBreaker(NAME, scope="host", probe_timeout=600.0)
    at = words(2)  # the round that is asked for; the round that is to be settled
    asked, probed = words(processes), words(processes)

    def ask(number: int) -> None:
        for round_number in range(1, rounds + 1):
            until(lambda: at[0] >= round_number)
            attempt = None
            while attempt is None:
                try:
                    attempt = breaker.attempt()
                except CircuitOpenError as error:
                    if error.reason == "probing":
                        break
            if attempt is not None:
                probed[number] += 1
            asked[number] = round_number
            if attempt is not None:
                until(lambda: at[1] >= round_number)
                attempt.success()
                asked[number] = round_number + rounds

    children = [in_child(lambda number=number: ask(number)) for number in range(processes)]
    for round_number in range(1, rounds + 1):
        breaker.trip(0.001)
        at[0] = round_number
        until(lambda: all(asked[i] >= round_number for i in range(processes)))
        assert sum(probed) == round_number, list(probed)
        assert breaker.snapshot().probes_in_flight == 1
        at[1] = round_number
        until(lambda: breaker.state is State.closed)
        until(lambda: any(asked[i] == round_number + rounds for i in range(processes)))
        for i in range(processes):
            asked[i] = min(asked[i], round_number)
    for child in children:
        end(child)
    return {"probes": sum(probed), "transitions": breaker.snapshot().transitions_by_kind}


def killed_at_any_moment(kills: int) -> dict[str, Any]:
    """Processes that call, probe, trip and write samples are killed: nothing is lost for long."""
    breaker = CircuitBreaker(
        NAME, 2, 0.001, scope="host", failure_rate=0.5, minimum_calls=5, probe_timeout=LEASE
    )
    core = attach().core
    randoms = random.Random(20261127)
    started = words(1)

    def work(seed: int) -> None:
        assert attach().core.slot is not None, "no slot is left"
        mine = random.Random(seed)
        sample = MemorySample(1, 1, rss_bytes=1)
        started[0] = seed + 1
        while True:
            with suppress(CircuitOpenError, ZeroDivisionError), breaker.attempt():
                if mine.random() < 0.4:
                    raise ZeroDivisionError
            core.push_sample(sample)
            if mine.random() < 0.01:
                breaker.reset()

    before = counters(breaker)
    wedged = 0.0
    for number in range(kills):
        child = in_child(lambda number=number: work(number))
        if number % 2:  # else it may die while it takes its slot
            until(lambda: started[0] == number + 1)
        time.sleep(randoms.random() * 0.003)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # What a dead process held is given back at once; one that died between the word and its
        # record leaves its probe to the lease.
        begun = time.monotonic()
        until(lambda: is_admitted(breaker))
        wedged = max(wedged, time.monotonic() - begun)
        now = counters(breaker)
        assert all(late >= early for late, early in zip(now, before, strict=True)), (before, now)
        before = now
    slots = core.workers()
    return {
        "slots": len(slots),
        "alive": sum(one["is_alive"] for one in slots),
        "longest_wait_in_leases": wedged / LEASE,
        "history": sum(len(core.history(one["slot"])) for one in slots),
    }


def counters(breaker: CircuitBreaker) -> tuple[int, ...]:
    found = breaker.snapshot()
    return (
        found.successes or 0,
        found.failures,
        found.rejections,
        found.stale,
        found.neutrals,
        found.transitions,
    )


def is_admitted(breaker: CircuitBreaker) -> bool:
    try:
        with breaker.attempt():
            return True
    except CircuitOpenError:
        time.sleep(0.001)
        return False


def a_prober_is_killed(rounds: int) -> dict[str, Any]:
    """Under a lease of ten minutes the next process probes as soon as the prober is dead."""
    breaker = CircuitBreaker(NAME, scope="host", probe_timeout=600.0)
    waits = []
    holding = words(1)
    for number in range(rounds):
        breaker.trip(0.001)

        def probe(number: int = number) -> None:
            attempt = None
            while attempt is None:
                with suppress(CircuitOpenError):
                    attempt = breaker.attempt()
            holding[0] = number + 1
            time.sleep(PATIENCE)

        child = in_child(probe)
        until(lambda: holding[0] == number + 1)
        for _ in range(3):
            assert not is_admitted(breaker), "the prober lives"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        begun = time.monotonic()
        until(lambda: is_admitted(breaker))
        waits.append(time.monotonic() - begun)
        breaker.reset()
    return {"longest_wait": max(waits), "rounds": rounds}


def forked_inside(rounds: int) -> dict[str, Any]:
    """A child that is forked inside of calls and probes of its parent settles none of them."""
    breaker = CircuitBreaker(NAME, 3, scope="host", count_calls=True, probe_timeout=600.0)
    for _ in range(rounds):
        breaker.reset()
        breaker.trip(0.001)
        attempt = None
        while attempt is None:
            with suppress(CircuitOpenError):
                attempt = breaker.attempt()

        def inherits() -> None:
            attempt.failure(ValueError("not the child's to say"))
            assert breaker.state is State.half_open
            grandchild = in_child(attempt.success)
            end(grandchild)
            assert breaker.state is State.half_open

        end(in_child(inherits))
        assert breaker.snapshot().probes_in_flight == 1
        attempt.success()
        assert breaker.state is State.closed
        end(in_child(lambda: fail(breaker, 3)))
        assert breaker.state is State.open
    return {"slot": attach().core.slot, "stale": breaker.snapshot().stale}


def forked_under_the_lock(_rounds: int) -> dict[str, Any]:
    """A child forked while another thread holds the file's lock does not go on holding it."""
    segment = attach()
    holding, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with segment.locked():
            holding.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(PATIENCE)
    child = in_child(lambda: time.sleep(PATIENCE))
    leave.set()
    thread.join()
    begun = time.monotonic()
    with segment.locked():
        waited = time.monotonic() - begun
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"waited": waited}


def told_of_others(_rounds: int) -> dict[str, Any]:
    """Listeners of one process hear of another one's transitions, in order, and from where."""
    heard: list[tuple[Any, ...]] = []
    breaker = CircuitBreaker(
        NAME,
        1,
        scope="host",
        on_event=lambda event: heard.append(
            (event.breaker, event.to_state, event.reason, event.origin, event.detail, event.pid)
        ),
    )

    def others() -> None:
        fail(breaker)
        breaker.reset()
        breaker.force_open(60, reason="maintenance")

    child = in_child(others)
    end(child)
    until(lambda: len(heard) >= 3)
    assert all(one[5] == child for one in heard)
    return {"heard": [one[:5] for one in heard]}


def survives_all(_rounds: int) -> dict[str, Any]:
    """What the first processes knew is known to those that come when all of them are gone."""

    def first() -> None:
        breaker = CircuitBreaker(NAME, 1, 500.0, scope="host")
        with suppress(ValueError):
            breaker.call(lambda: int("no number"))
        attach().core.push_sample(MemorySample(5, 6, rss_bytes=7))

    end(in_child(first))
    breaker = CircuitBreaker.from_config(registry_config())
    found = breaker.snapshot()
    return {
        "state": found.state,
        "retry_after": found.retry_after,
        "last_error": found.last_error,
        "failures": found.failures,
        "history": [sample[0][2] for sample in attach().core.history(0)],
    }


def registry_config() -> Any:
    return registry.get_or_create(
        NAME, failure_threshold=1, reset_timeout=500.0, scope="host"
    ).config


if __name__ == "__main__":
    program = globals()[sys.argv[1]]
    print(json.dumps(program(int(sys.argv[2]))))
