"""A forked child can call at once, whatever its parent was doing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

PRELUDE = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # forking with threads is what is tested
from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native._core import ManualClock

def in_child(check):
    pid = os.fork()
    if pid == 0:
        try:
            check()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the child ended with {status}"

clock = ManualClock()
breaker = CircuitBreaker("fork", clock=clock)
"""


def run(body: str) -> None:
    script = PRELUDE + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_child_of_a_process_with_a_call_in_flight_can_call():
    run("""
        inside, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=breaker(lambda: (inside.set(), leave.wait(10))))
        thread.start()
        inside.wait(10)
        in_child(lambda: breaker.call(lambda: None))
        leave.set()
        thread.join()
    """)


def test_a_child_forked_during_a_probe_may_probe_itself():
    run("""
        breaker.trip()
        clock.advance(60)

        def probe():
            def check():
                assert breaker.state is State.half_open
                assert breaker.call(lambda: 42) == 42
                assert breaker.state is State.closed
            in_child(check)

        breaker.call(probe)
        assert breaker.state is State.closed
    """)


def test_a_child_that_returns_through_its_parents_probe_settles_nothing():
    run("""
        breaker.trip()
        clock.advance(60)
        pids = []

        def probe():
            pids.append(os.fork())

        breaker.call(probe)
        if pids[0] == 0:
            os._exit(0 if breaker.state is State.half_open else 1)
        assert breaker.state is State.closed
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    """)


def test_a_grandchild_can_call_too():
    run("""
        breaker.trip()
        clock.advance(60)

        def probe():
            in_child(lambda: in_child(lambda: breaker.call(lambda: None)))

        breaker.call(probe)
    """)
