"""The rule that tells a leak from what only fills, and what is said of a leak."""

from __future__ import annotations

import gc
import itertools
import sys
from collections import deque

import pytest

from memguard_native.integrations.repeated_calls import (
    KINDS,
    MOST_BATCHES,
    Growth,
    find_leak,
    judge,
)

BLOCKS, HEAP, MAPPED, DESCRIPTORS, THREADS = KINDS


def readings(*steps: int) -> list[int]:
    return [1000, *itertools.accumulate(steps, initial=1000)][1:]


def test_even_growth_in_each_batch_is_a_leak():
    found = judge(BLOCKS, readings(*[100] * 6), 50, 0)
    assert isinstance(found, Growth)
    assert (found.per_call, found.per_batch) == (2.0, (100,) * 6)


def test_a_leak_needs_all_of_its_batches():
    assert judge(BLOCKS, readings(*[100] * 5), 50, 0) == "unclear"


def test_two_batches_that_leave_nothing_are_quiet():
    assert judge(BLOCKS, readings(500, 0, 3), 50, 0) == "quiet"
    assert judge(BLOCKS, readings(500, 0), 50, 0) == "unclear"
    assert judge(BLOCKS, readings(500), 50, 0) == "unclear"


def test_growth_that_fades_is_no_leak():
    assert judge(BLOCKS, readings(*[400, 300, 220, 160, 120, 90]), 50, 0) == "unclear"


def test_growth_that_is_given_back_later_is_no_leak():
    assert judge(BLOCKS, readings(100, 100, 100, 100, 100, -480), 50, 0) != "leak"
    assert not isinstance(judge(BLOCKS, readings(100, 100, 100, 100, -390, 100), 50, 0), Growth)


def test_a_leak_in_every_second_batch_is_found_in_the_end():
    steps = [100, 0] * (MOST_BATCHES // 2)
    assert judge(BLOCKS, readings(*steps[:-2]), 50, 0) == "unclear"
    assert isinstance(judge(BLOCKS, readings(*steps), 50, 0), Growth)


def test_noise_is_no_growth():
    for kind in KINDS:
        noise = int(kind.noise * 50)
        assert judge(kind, readings(*[noise] * 6), 50, 0) == "quiet"
        assert isinstance(judge(kind, readings(*[noise + 1] * 6), 50, 0), Growth)


def test_tolerance_is_of_bytes_only():
    steps = readings(*[50_000] * 6)
    assert isinstance(judge(HEAP, steps, 50, 999), Growth)
    assert judge(HEAP, steps, 50, 1000) == "quiet"
    assert isinstance(judge(DESCRIPTORS, readings(50, 50, 50), 50, 1000), Growth)


def test_descriptors_are_judged_before_they_run_out():
    assert isinstance(judge(DESCRIPTORS, readings(1, 1, 1), 50, 0), Growth)


def test_a_leak_of_one_small_object_a_call_is_found():
    kept: deque[object] = deque()  # grows by a small block at a time, and not by an eighth of it
    leak = find_leak(lambda: kept.append(object()))
    assert leak is not None
    assert [growth.kind for growth in leak.growths] == [BLOCKS]
    assert leak.growths[0].per_call == pytest.approx(1.0, rel=0.1)
    (line, left_bytes), *_ = leak.lines
    assert line.startswith(f"{__file__}:")
    assert left_bytes == pytest.approx(sys.getsizeof(object()) + 8, rel=0.5)


def test_the_type_that_grows_is_named():
    class Connection:
        pass

    kept = []
    leak = find_leak(lambda: kept.append(Connection()))
    assert leak is not None
    assert any(name.endswith("Connection") for name, _ in leak.types)
    assert "objects a call" in str(leak)


def test_cycles_are_no_leak():
    def call():
        one: list[object] = []
        one.append(one)

    gc.collect()
    assert find_leak(call) is None


def test_a_clean_function_is_called_as_often_as_it_says():
    calls = itertools.count()
    assert find_leak(lambda: next(calls), iterations=7, warm_up=3) is None
    assert next(calls) <= 3 + 7 * MOST_BATCHES


def test_what_a_call_raises_ends_it():
    with pytest.raises(ZeroDivisionError):
        find_leak(lambda: 1 / 0)


def test_tolerated_objects_are_weighed():
    kept: deque[object] = deque()
    assert find_leak(lambda: kept.append(object()), tolerance_kb=1) is None
    assert find_leak(lambda: kept.append(object()), tolerance_kb=0.001) is not None
