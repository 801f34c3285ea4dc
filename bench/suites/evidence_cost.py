"""How much does the sampled allocation profile slow down code that does nothing but allocate?

Beside it, in the same rounds, tracemalloc with one frame, which the profile stands in for. The
profile is armed for two minutes, on suspicion only; so the goal is that nothing of it is left when
it has been disarmed.
"""

from __future__ import annotations

import tracemalloc

from bench.harness import Bench
from memguard_native import _core

GROUP = "detector"


def allocate() -> object:
    """150 objects and 100 tables: what handling a small JSON document makes."""
    return [{"number": number, "text": f"text {number}"} for number in range(50)]


def off() -> None:
    tracemalloc.stop()
    _core.stop_allocation_profile()


def disarmed() -> None:
    armed()
    off()


def armed() -> None:
    off()
    if _core.HAS_ALLOCATION_PROFILE:
        _core.start_allocation_profile(seconds=600.0)


def traced() -> None:
    off()
    tracemalloc.start(1)


def suite(b: Bench) -> None:
    b.resources.callback(off)
    b.case("off", allocate, before=off)
    b.case("after disarming", allocate, before=disarmed, package="memguard-native")
    if _core.HAS_ALLOCATION_PROFILE:
        b.case("armed", allocate, before=armed, package="memguard-native")
    else:
        b.absent("armed", "this Python's allocations cannot be sampled", "memguard-native")
    b.case("tracemalloc, 1 frame", allocate, before=traced)
    b.yardstick = "tracemalloc, 1 frame"
    b.budget("after disarming", ratio_to="off", at_most=1.05, goal="disarmed costs nothing")
