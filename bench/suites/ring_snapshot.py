"""How long does it take to read the newest 4096 numbers as a numpy array?

The copy is part of it on both sides: a view of a ring is torn while a writer runs.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from bench.harness import Bench
from memguard_native import _core

GROUP = "ring"
CAPACITY = 4096


def suite(b: Bench) -> None:
    numbers = [float(i) for i in range(CAPACITY)]
    b.case("empty loop", None, "pass")
    ring = _core.RingBuffer(CAPACITY)
    for number in numbers:
        ring.push(number)
    b.case("memguard", ring.snapshot, package="memguard-native")
    kept = deque(numbers, maxlen=CAPACITY)
    b.case("np.array(deque)", kept, "array(x)", array=np.array, package="numpy")
    b.yardstick = "np.array(deque)"
    b.budget("memguard", over="empty loop", ratio_to="np.array(deque)", at_most=1 / 50, goal="G8")
