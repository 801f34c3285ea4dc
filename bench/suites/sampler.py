"""How long does one reading of this process's memory take?

All sides answer from Python, in bytes. `statm` reads the resident set by a descriptor that stays
open. The cheap set adds its division into anonymous, mapped and shared memory, swap, threads,
malloc's figures, CPython's arenas and what the control group is charged for; the full sample adds
the group's limits, private memory, events and pressure. psutil's memory_info reads one line.
"""

from __future__ import annotations

import psutil

from bench.harness import Bench
from memguard_native import _core

GROUP = "sampler"


def suite(b: Bench) -> None:
    b.case("empty loop", None, "pass")
    probe = _core.Probe()
    b.case("memguard, statm", probe.rss_bytes, package="memguard-native")
    b.case("memguard, cheap set", probe.cheap_sample, package="memguard-native")
    b.case("memguard, full sample", probe.sample, package="memguard-native")
    process = psutil.Process()
    b.case("psutil memory_info", process.memory_info, package="psutil")
    b.yardstick = "psutil memory_info"
    for case, at_most, goal in (
        ("memguard, statm", 1 / 8, "G9"),
        ("memguard, cheap set", 0.85, "G12"),
    ):
        b.budget(case, over="empty loop", ratio_to="psutil memory_info", at_most=at_most, goal=goal)
