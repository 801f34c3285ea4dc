"""What a breaker holds on to: callers, processes, memory, time."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable

from bench.corners.adapters import LONG_S, Breaker, succeed
from bench.corners.tools import PATIENCE_S, Held
from bench.rivals import SimulatedOutageError

THREADS, CALLS, CALL_S = 8, 5, 0.010
ROUNDS, ROUND_CALLS = 20, 500


def parallel(library: type[Breaker]) -> str:
    """8 threads x 5 x 10 ms (wall ms)"""
    guarded = library().guard(lambda: time.sleep(CALL_S))
    barrier = threading.Barrier(THREADS + 1)

    def run() -> None:
        barrier.wait()
        for _ in range(CALLS):
            guarded()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return f"{1000 * (time.perf_counter() - begun):.0f}"


def frame_locals(library: type[Breaker]) -> str:
    """pins frame locals"""
    breaker = library(timeout=LONG_S)
    local: list[weakref.ref[object]] = []

    class Local:
        pass

    def failing() -> None:
        kept = Local()
        local.append(weakref.ref(kept))
        raise SimulatedOutageError

    with contextlib.suppress(SimulatedOutageError, breaker.rejection):
        breaker.guard(failing)()
    rejection = breaker.reject()  # the last one is often kept, by a logger for one
    gc.collect()
    pinned = local[0]() is not None
    del rejection
    return "yes" if pinned else "no"


def window(library: type[Breaker]) -> str:
    """window of 3600 s against one of 10 s (times as long)"""
    breaker = library()
    try:
        short, long = (breaker.guard_over(succeed, seconds) for seconds in (10, 3600))
    except NotImplementedError:
        return "n/a: knows no rates"
    taken = [(_seconds(short), _seconds(long)) for _ in range(ROUNDS)]
    fastest_short, fastest_long = map(min, zip(*taken, strict=True))
    return f"{fastest_long / fastest_short:.1f}"


def _seconds(guarded: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(ROUND_CALLS):
        guarded()
    return time.perf_counter() - begun


def fork(library: type[Breaker]) -> str:
    """fork during a call"""
    breaker = library(timeout=LONG_S)
    with Held(breaker):
        child = os.fork()
        if child == 0:
            _call_and_exit(breaker)
        return _how_it_went(child)


def _call_and_exit(breaker: Breaker) -> None:
    code = 1
    try:
        breaker.guard(succeed)()
        code = 0
    finally:
        os._exit(code)


def _how_it_went(child: int) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "ok" if status == 0 else "child cannot call"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "child deadlocks"
