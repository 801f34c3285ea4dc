"""The sampled profile under threads, forks, other interpreters and the debug allocator."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from memguard_native import _core

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(
        not _core.HAS_ALLOCATION_PROFILE, reason="this Python's allocations cannot be sampled"
    ),
]

PRELUDE = """
import gc, os, random, signal, sys, threading, time, tracemalloc, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # forking with threads is what is tested
from memguard_native import _core
from memguard_native.memory import allocation_profile

def start(interval_bytes=1, seconds=600.0):
    _core.start_allocation_profile(seconds=seconds, interval_bytes=interval_bytes)

def churn(turns, seed=1):
    # Blocks of all sizes that come, grow and go, some of them much later.
    choose = random.Random(seed)
    kept = [None] * 500
    for _ in range(turns):
        place = choose.randrange(500)
        kind = choose.randrange(4)
        if kind == 0:
            kept[place] = bytearray(choose.randrange(5000))
        elif kind == 1:
            kept[place] = {i: str(i) for i in range(choose.randrange(50))}
        elif kind == 2 and isinstance(kept[place], bytearray):
            kept[place] += bytes(choose.randrange(5000))
        else:
            kept[place] = None
    return kept

def in_child(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            check()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(body: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(body)],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


@pytest.fixture(params=["", "debug", "malloc"])
def allocator(request) -> dict[str, str]:
    return {"PYTHONMALLOC": request.param} if request.param else {}


def test_threads_allocate_while_profiles_come_and_go(allocator):
    run(
        """
        sys.setswitchinterval(1e-5)
        done = threading.Event()
        def work(number):
            while not done.is_set():
                churn(300, number)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(150):
            start(1 if turn % 2 else 4096)
            churn(100, turn)
            found = _core.stop_allocation_profile()
            assert found["elsewhere"] == 0, found
        done.set()
        for thread in threads:
            thread.join()
        """,
        **allocator,
    )


def test_the_collector_runs_and_tracemalloc_comes_and_goes_meanwhile(allocator):
    run(
        """
        gc.set_threshold(50)
        choose = random.Random(3)
        for turn in range(300):
            action = choose.randrange(4)
            if action == 0:
                try:
                    start(64)
                except RuntimeError as error:
                    assert "already" in str(error)
            elif action == 1:
                _core.stop_allocation_profile()
            elif action == 2:
                tracemalloc.start(choose.randrange(1, 4))
            else:
                tracemalloc.stop()
            kept = churn(100, turn)
        tracemalloc.stop()
        _core.stop_allocation_profile()
        """,
        **allocator,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_no_profile_and_can_start_its_own(allocator):
    run(
        """
        start()
        kept = churn(3000)
        def check():
            assert _core.stop_allocation_profile() is None
            kept.clear()
            churn(3000)
            start()
            more = churn(3000)
            assert _core.stop_allocation_profile()["samples"] > 1000
        for _ in range(5):
            in_child(check)
        assert _core.stop_allocation_profile()["samples"] > 1000
        """,
        **allocator,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_while_threads_allocate_never_hang():
    run(
        """
        done = threading.Event()
        def work(number):
            while not done.is_set():
                churn(200, number)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        start()
        for _ in range(60):
            in_child(lambda: churn(200))
        done.set()
        for thread in threads:
            thread.join()
        """
    )


def test_a_profile_that_nobody_ends_does_no_harm_at_exit(allocator):
    run("start()\nkept = churn(5000)\n", **allocator)
    run("start()\ntracemalloc.start()\nkept = churn(5000)\n", **allocator)


def test_it_ends_by_itself_when_time_is_up():
    run(
        """
        start(seconds=0.05)
        deadline = time.monotonic() + 0.05
        while time.monotonic() <= deadline:
            pass
        churn(10)
        kept = churn(5000)
        found = _core.stop_allocation_profile()
        assert all(row[3][0][2] != 0 for row in found["stacks"] if row[3])
        assert not any(frame[0] == "churn" for row in found["stacks"] for frame in row[3])
        """
    )


ANOTHER = """
if sys.version_info >= (3, 13):
    import _interpreters
    def run_in_another(code):
        other = _interpreters.create("isolated")
        failed = _interpreters.exec(other, code)
        assert failed is None, failed
        _interpreters.destroy(other)
else:
    import _xxsubinterpreters
    def run_in_another(code):
        other = _xxsubinterpreters.create(isolated=True)
        _xxsubinterpreters.run_string(other, code)
        _xxsubinterpreters.destroy(other)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all interpreters share one GIL")
def test_interpreters_with_a_gil_of_their_own_allocate_meanwhile():
    code = "x = [None] * 100\nfor i in range(400000): x[i % 100] = [i] * (i % 300)"
    run(
        f"code = {code!r}\n{ANOTHER}"
        + textwrap.dedent(
            """
            threads = [threading.Thread(target=run_in_another, args=(code,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            elsewhere = turn = 0
            while any(thread.is_alive() for thread in threads):
                turn += 1
                start(1)
                churn(50, turn)
                elsewhere += _core.stop_allocation_profile()["elsewhere"]
            for thread in threads:
                thread.join()
            assert turn > 10
            assert elsewhere > 0
            """
        )
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the package refuses to be imported there")
def test_another_interpreter_can_neither_start_nor_end_a_profile():
    code = """
from memguard_native import _core
assert _core.stop_allocation_profile() is None
_core.forget_allocation_profile()
try:
    _core.start_allocation_profile(seconds=1.0)
except RuntimeError as error:
    assert "main interpreter" in str(error), error
else:
    raise AssertionError("it started")
"""
    run(
        f"code = {code!r}\n{ANOTHER}"
        + textwrap.dedent(
            """
            start()
            kept = churn(100)
            run_in_another(code)
            assert _core.stop_allocation_profile()["samples"] > 50
            """
        )
    )
