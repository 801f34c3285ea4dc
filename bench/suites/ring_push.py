"""How long does it take to append a number to a ring that drops the oldest?

Goals: no slower than `collections.deque(maxlen=...)`, a third of a store into a numpy array.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from bench.harness import Bench
from memguard_native import _core

GROUP = "ring"
CAPACITY = 4096


def suite(b: Bench) -> None:
    b.case("empty loop", None, "pass")
    ring = _core.RingBuffer(CAPACITY)
    b.case("memguard", ring.push, "x(1.5)", package="memguard-native")
    b.case("deque(maxlen).append", deque(maxlen=CAPACITY).append, "x(1.5)")
    b.case("numpy item store", np.zeros(CAPACITY), "x[7] = 1.5", package="numpy")
    b.yardstick = "deque(maxlen).append"
    for denominator, limit in (("deque(maxlen).append", 1.0), ("numpy item store", 1 / 3)):
        b.budget("memguard", over="empty loop", ratio_to=denominator, at_most=limit, goal="G8")
