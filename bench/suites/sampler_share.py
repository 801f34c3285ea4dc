"""What share of a processor do the threads of a monitor take that samples once a minute?

Processor time of both threads as the kernel counts it, over samples at a short interval, divided by
their number: what one sample costs with all that it wakes. That by 60 s is the share; what a minute
of other work leaves of the caches is not in it.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from bench.harness import Bench
from memguard_native.memory.monitor import MemoryMonitor

GROUP = "sampler"
COST, SHARE = "us of processor time per sample", "millionths of a processor"
INTERVAL = 0.02
THREADS = ("memguard-sample", "memguard-memory")
BOTH = "memguard, both threads"


def suite(b: Bench) -> None:
    if not sys.platform.startswith("linux"):
        b.absent(BOTH, "this system does not count time by thread")
        return
    turns = 5 if b.effort.quick else 15
    monitor = MemoryMonitor(INTERVAL, threshold_mb_per_hour=1e9)
    monitor.start()
    try:
        time.sleep(10 * INTERVAL)  # first samples open files and import modules
        for turn in range(turns):
            b.progress(f"turn {turn + 1} of {turns}")
            seconds = seconds_per_sample(monitor, 1.0)
            b.record(BOTH, COST, seconds * 1e6, package="memguard-native")
            b.record(BOTH, SHARE, seconds / 60.0 * 1e6)
    finally:
        monitor.stop()
    b.budget(BOTH, metric=SHARE, at_most=1000.0, goal="G12")


def seconds_per_sample(monitor: MemoryMonitor, span: float) -> float:
    """Of processor time, over the samples of so many seconds."""
    before, count = processor_seconds(), monitor.snapshot().sample_count
    time.sleep(span)
    spent = processor_seconds() - before
    return spent / (monitor.snapshot().sample_count - count)


def processor_seconds() -> float:
    """What the threads of the monitor have had so far; Python's are known by their number."""
    python = {t.native_id for t in threading.enumerate() if t.name in THREADS}
    total_ns = 0
    found = 0
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) in python or (task / "comm").read_text().strip() in THREADS:
            total_ns += int((task / "schedstat").read_text().split()[0])
            found += 1
    if found != len(THREADS):
        raise RuntimeError(f"{found} threads of a monitor, not {len(THREADS)}")
    return total_ns / 1e9
