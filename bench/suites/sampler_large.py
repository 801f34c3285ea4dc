"""How much longer does a sample take in a process of 2 GiB and 12,000 mappings?

Two processes take turns, a small one and a large one. Beside the cheap set stands a look through
all pages, which is what the sampler never does.
"""

from __future__ import annotations

import contextlib

from bench import sampled_process
from bench.harness import Bench

GROUP = "sampler"
METRIC = "ns"
MAPPINGS = 12_000
BYTES = 2 * 2**30

SMALL, LARGE = ", small process", ", large process"
# What is asked, its package, and how many calls make a turn of some milliseconds.
CASES = {
    "memguard, cheap set": ("cheap", "memguard-native", 60),
    "psutil memory_info": ("psutil", "psutil", 40),
    "memguard, footprint on demand": ("footprint", None, 1),
}


def suite(b: Bench) -> None:
    turns = 40 if b.effort.quick else 150
    with contextlib.ExitStack() as stack:
        b.progress("taking memory")
        processes = {
            SMALL: stack.enter_context(sampled_process.running(0, 0)),
            LARGE: stack.enter_context(sampled_process.running(MAPPINGS, BYTES)),
        }
        for name, (what, package, passes) in CASES.items():
            for turn in range(turns if passes > 1 else 3):
                b.progress(f"{name}, turn {turn + 1} of {turns}")
                for size, process in processes.items():
                    found = process.nanoseconds(what, passes)
                    b.record(name + size, METRIC, found, package=package)
    b.budget(
        "memguard, cheap set" + LARGE,
        ratio_to="memguard, cheap set" + SMALL,
        metric=METRIC,
        at_most=1.2,
        goal="G12",
    )
