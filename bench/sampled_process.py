"""Processes of a given size that time how long a look at their own memory takes.

As a program, `python -m bench.sampled_process MAPPINGS BYTES`: makes so many mappings of its own
with so many bytes touched in them, says so by an empty line, and for every line "WHAT PASSES" on
stdin answers with the nanoseconds that one call of WHAT took, a key of LOOKS.
"""

from __future__ import annotations

import contextlib
import mmap
import subprocess
import sys
from collections.abc import Callable, Iterator

from bench import loops
from bench.servers import ROOT

PAGE = mmap.PAGESIZE


class SampledProcessError(RuntimeError):
    """The process ended; its last words are on stderr."""


class SampledProcess:
    """One process, its memory taken, waiting to be asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def nanoseconds(self, what: str, passes: int) -> float:
        """Of one call. Raises SampledProcessError."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {passes}\n")
        self._process.stdin.flush()
        return float(self.line())

    def line(self) -> str:
        """Its next. Raises SampledProcessError."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SampledProcessError(f"the process ended with {self._process.wait()}")
        return line


@contextlib.contextmanager
def running(mappings: int, size: int) -> Iterator[SampledProcess]:
    """A process with so many mappings more than an empty one, and `size` bytes in them."""
    command = [sys.executable, "-m", "bench.sampled_process", str(mappings), str(size)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            sampled = SampledProcess(process)
            sampled.line()
            yield sampled
        finally:
            process.kill()


def take(mappings: int, size: int) -> list[mmap.mmap]:
    """That many mappings; every other one is only reserved, or the kernel would make them one."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    touched = mappings // 2
    each = max(1, size // max(1, touched) // PAGE) * PAGE
    taken = []
    for _ in range(touched):
        mapping = mmap.mmap(-1, each, flags)
        mapping[::PAGE] = bytes(each // PAGE)
        taken.append(mapping)
        taken.append(mmap.mmap(-1, PAGE, flags, mmap.PROT_READ))
    return taken


def looks() -> dict[str, Callable[[], object]]:
    import psutil

    from memguard_native import _core
    from memguard_native.memory.probe import memory_footprint

    return {
        "cheap": _core.Probe().cheap_sample,
        "psutil": psutil.Process().memory_info,
        "footprint": memory_footprint,
    }


LOOKS = ("cheap", "psutil", "footprint")


def main(mappings: str, size: str) -> None:
    taken = take(int(mappings), int(size))
    chunks = {what: loops.plain("x()", {"x": look}) for what, look in looks().items()}
    print(flush=True)
    for line in sys.stdin:
        what, passes = line.split()
        spent_ns = chunks[what](int(passes))
        print(spent_ns / (int(passes) * loops.UNROLLED), flush=True)
    assert taken is not None  # held to the end


if __name__ == "__main__":
    main(*sys.argv[1:])
