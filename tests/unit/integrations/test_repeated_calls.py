"""The rule that tells a leak from what only fills, and what is said of a leak."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import textwrap

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


def alone(code: str) -> str:
    """What `code` prints in a process of its own. Here the threads and the garbage of all other
    tests come and go, as much of it as what one object a call leaves."""
    code = "from memguard_native.integrations.repeated_calls import *\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_leak_of_one_small_object_a_call_is_found():
    told = alone("""
        from collections import deque
        kept = deque()  # grows by a small block at a time, and not by an eighth of it
        leak = find_leak(lambda: kept.append(object()))
        (growth,) = leak.growths
        (line, left_bytes), *_ = leak.lines
        print(growth.kind.name, round(growth.per_call), line, 12 < left_bytes < 36, sep="|")
    """)
    assert told == "Python objects|1|<string>:5|True\n"


def test_the_type_that_grows_is_named():
    told = alone("""
        class Connection:
            pass
        kept = []
        leak = find_leak(lambda: kept.append(Connection()))
        print(any(name.endswith("Connection") for name, _ in leak.types))
        print(leak)
    """)
    assert told.startswith("True\n")
    assert "objects a call" in told


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
    told = alone("""
        from collections import deque
        kept = deque()
        print(find_leak(lambda: kept.append(object()), tolerance_kb=1) is None)
        print(find_leak(lambda: kept.append(object()), tolerance_kb=0.001) is None)
    """)
    assert told == "True\nFalse\n"
