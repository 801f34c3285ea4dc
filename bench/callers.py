"""Processes that call through one shared breaker at the same time, each when it is told to.

As a program, `python -m bench.callers NAME NAMESPACE CORE`: for every line "TIME PASSES" on stdin
it makes its calls as soon as the clock shows TIME, and answers with the times of their start and
end. They begin together because all know the same point in time: lines wake them one by one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from time import perf_counter_ns

from bench import loops, segments
from bench.servers import ROOT

# From telling them to their start: longer than a process takes to wake up.
NOTICE_NS = 2_000_000


class CallersError(RuntimeError):
    """A caller ended; its last words are on stderr."""


class Caller:
    """One process, its breaker attached, waiting to be told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, start_ns: int, passes: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{start_ns} {passes}\n")
        self._process.stdin.flush()

    def answer(self) -> list[int]:
        """The numbers of its next line. Raises CallersError."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CallersError(f"a caller ended with {self._process.wait()}")
        return [int(word) for word in line.split()]


@contextlib.contextmanager
def running(count: int, name: str, namespace: str) -> Iterator[list[Caller]]:
    """Start so many callers through this breaker, wait until all are ready, end them at exit."""
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        callers = []
        for core in range(count):
            command = [sys.executable, "-m", "bench.callers", name, namespace, str(core)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            stack.enter_context(process)  # waits for it
            stack.callback(process.kill)
            callers.append(Caller(process))
        for caller in callers:
            caller.tell(0, 1000)  # warms its code
            caller.answer()
        yield callers


def million_calls_per_s_of_each(callers: Sequence[Caller], passes: int) -> float:
    """Over the time from the first one's start to the last one's end."""
    start_ns = perf_counter_ns() + NOTICE_NS
    for caller in callers:
        caller.tell(start_ns, passes)
    starts, ends = zip(*[caller.answer() for caller in callers], strict=True)
    return passes * loops.UNROLLED / (max(ends) - min(starts)) * 1000


def noop() -> None:
    pass


def main(name: str, namespace: str, core: str) -> None:
    # The kernel wakes those that one process writes to on that one's core, both of them.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(core) % len(cores)]})
    chunk = loops.plain("x()", {"x": segments.shared(name, namespace)(noop)})
    for line in sys.stdin:
        start_ns, passes = map(int, line.split())
        while perf_counter_ns() < start_ns:
            pass
        start = perf_counter_ns()
        chunk(passes)
        print(start, perf_counter_ns(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
