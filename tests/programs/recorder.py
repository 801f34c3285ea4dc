"""Runs a program in compressed time and writes a row a minute.

The ticks and the rows follow one absolute schedule each, so that a late one does not move the later
ones. The rows are taken by a thread: a program's tick does not know when it is looked at.
"""

import csv
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tests.programs.registry import Program, Service

TICKS_PER_MINUTE = 5
COLUMNS = (
    *("i", "t", "rss_kb", "anon_kb", "file_kb", "shmem_kb", "uss_kb", "pss_kb", "swap_kb"),
    *("threads", "arena", "uordblks", "fordblks", "hblkhd", "pyblocks", "gc0", "gc1", "gc2"),
    *("gen2_collections", "vsize_kb", "load"),
)
STATUS = ("VmRSS", "RssAnon", "RssFile", "RssShmem", "VmSwap", "Threads", "VmSize")
MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"),
    *("fordblks", "keepcost"),
)


class Mallinfo2(ctypes.Structure):
    """glibc's struct of that name."""

    _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO]


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2


def read_status() -> dict[str, int]:
    """The lines of /proc/self/status that a row needs, in KiB (threads: their number)."""
    with open("/proc/self/status") as lines:
        fields = (line.split(":") for line in lines)
        return {name: int(value.split()[0]) for name, value in fields if name in STATUS}


def row(index: int, elapsed_s: float, load: float) -> list[object]:
    """One row. USS and PSS stay 0: they are too costly for a sampler, and nothing reads them."""
    status = read_status()
    heap = mallinfo2()
    resident = [status[name] for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")]
    malloc = [heap.arena, heap.uordblks, heap.fordblks, heap.hblkhd]
    python = [sys.getallocatedblocks(), *gc.get_count(), gc.get_stats()[2]["collections"]]
    return [
        *(index, round(elapsed_s, 3), *resident, 0, 0, status["VmSwap"], status["Threads"]),
        *(*malloc, *python, status["VmSize"], round(load, 2)),
    ]


def follow(start: float, every_s: float, count: int, act: Callable[[int], object]) -> None:
    """Calls act(0), act(1), ... at start + every_s, start + 2 * every_s, ..."""
    for number in range(count):
        time.sleep(max(0.0, start + (number + 1) * every_s - time.monotonic()))
        act(number)


def run(
    program: Program,
    service: Service,
    *,
    minutes: int,
    minute_s: float,
    rows: TextIO | None = None,
) -> None:
    """Runs `program` for so many compressed minutes, and writes its trace to `rows`."""
    tick = program.build(service)
    start = time.monotonic()

    def step(number: int) -> None:
        service.minute = (number + 1) / TICKS_PER_MINUTE
        tick()

    recording = None
    if rows is not None:
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(COLUMNS)

        def record(index: int) -> None:
            writer.writerow(row(index, time.monotonic() - start, service.load))

        recording = threading.Thread(target=follow, args=(start, minute_s, minutes, record))
        recording.start()
    follow(start, minute_s / TICKS_PER_MINUTE, minutes * TICKS_PER_MINUTE, step)
    if recording is not None:
        recording.join()
