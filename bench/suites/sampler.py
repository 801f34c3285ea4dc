"""How long does one reading of this process's resident memory take?

Both sides answer the same question, in bytes. Ours reads /proc/self/statm by a descriptor that
stays open; the full sample adds /proc/self/status and the allocator's figures.
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
    b.case("memguard, full sample", probe.sample, package="memguard-native")
    process = psutil.Process()
    b.case("psutil memory_info", process.memory_info, package="psutil")
    b.yardstick = "psutil memory_info"
    b.budget(
        "memguard, statm",
        over="empty loop",
        ratio_to="psutil memory_info",
        at_most=1 / 8,
        goal="G9",
    )
