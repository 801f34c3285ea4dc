from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native._core import RingBuffer


def filled(capacity: int, values) -> RingBuffer:
    ring = RingBuffer(capacity)
    for value in values:
        ring.push(value)
    return ring


def test_fresh_ring_is_empty():
    ring = RingBuffer(8)
    assert (len(ring), ring.pushed, ring.capacity) == (0, 0, 8)
    assert ring.snapshot().shape == (0,)


def test_snapshot_is_a_float64_array_oldest_first():
    array = filled(4, range(10)).snapshot()
    assert array.dtype == np.float64
    assert array.tolist() == [6, 7, 8, 9]


def test_full_ring_drops_the_oldest_and_goes_on_counting():
    ring = filled(4, range(10))
    assert (len(ring), ring.pushed) == (4, 10)


def test_snapshot_is_a_copy():
    ring = filled(4, [1, 2])
    array = ring.snapshot()
    array[0] = 99
    ring.push(3)
    assert array.tolist() == [99, 2]
    assert ring.snapshot().tolist() == [1, 2, 3]
    assert array.flags.owndata
    assert array.flags.writeable


@given(
    st.integers(1, 70),
    st.lists(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53), max_size=200),
)
def test_ring_agrees_with_a_deque(capacity, values):
    ring, model = filled(capacity, values), deque(map(float, values), maxlen=capacity)
    assert ring.snapshot().tolist() == list(model)
    assert len(ring) == len(model)
    assert ring.pushed == len(values)


def test_special_floats_are_kept():
    array = filled(4, [math.nan, math.inf, -math.inf, -0.0]).snapshot()
    assert math.isnan(array[0])
    assert array[1:3].tolist() == [math.inf, -math.inf]
    assert math.copysign(1, array[3]) == -1


def test_whatever_is_a_float_can_be_pushed():
    class Meters:
        def __float__(self) -> float:
            return 2.5

    assert filled(8, [1, True, np.float32(0.5), Meters()]).snapshot().tolist() == [1, 1, 0.5, 2.5]


@pytest.mark.parametrize("value", ["1.5", None, [], 1j])
def test_what_is_no_number_is_refused_and_changes_nothing(value):
    ring = filled(4, [1])
    with pytest.raises(TypeError):
        ring.push(value)
    assert ring.snapshot().tolist() == [1]


def test_minus_one_is_a_value_like_any_other():
    assert filled(2, [-1, -1.0]).snapshot().tolist() == [-1, -1]


@pytest.mark.parametrize("capacity", [0, -1, 2**27 + 1, 10**30, -(10**30)])
def test_capacity_out_of_range_is_a_value_error(capacity):
    with pytest.raises(ValueError, match=r"capacity must be from 1 to 134217728, got"):
        RingBuffer(capacity)


@pytest.mark.parametrize("capacity", [1.0, "4", None, True, [4]])
def test_capacity_that_is_no_int_is_a_type_error(capacity):
    with pytest.raises(TypeError, match="capacity must be an int, got"):
        RingBuffer(capacity)


def test_capacity_is_required_and_has_a_name():
    assert RingBuffer(capacity=3).capacity == 3
    for arguments in [(), (1, 2)]:
        with pytest.raises(TypeError):
            RingBuffer(*arguments)


def test_error_of_an_index_is_passed_on():
    class Broken:
        def __index__(self) -> int:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        RingBuffer(Broken())


def test_type_is_immutable_and_final():
    with pytest.raises(TypeError):
        RingBuffer.push = None
    with pytest.raises(TypeError):
        type("Sub", (RingBuffer,), {})


def test_numpy_is_loaded_by_the_first_snapshot_and_not_before():
    script = (
        "import sys; from memguard_native._core import RingBuffer; r = RingBuffer(4); r.push(1)\n"
        "assert 'numpy' not in sys.modules\n"
        "assert r.snapshot().tolist() == [1]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_missing_numpy_is_an_import_error():
    script = (
        "import sys; from memguard_native._core import RingBuffer; sys.modules['numpy'] = None\n"
        "try: RingBuffer(4).snapshot()\n"
        "except ImportError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "refused\n"


@pytest.mark.stress
@pytest.mark.parametrize("capacity", [64, 100_000])
def test_pushes_from_several_threads_are_all_there(capacity):
    """The larger ring is copied without the GIL, while the others push."""
    ring, per_thread, writers = RingBuffer(capacity), 60_000, 3
    done = threading.Event()
    torn = []

    def write(first: int) -> None:
        for number in range(first, first + per_thread):
            ring.push(number)

    def read() -> None:
        while not done.is_set():
            values = ring.snapshot()
            for writer in range(writers):
                own = values[(values >= writer * 10**6) & (values < (writer + 1) * 10**6)]
                if not (np.diff(own) == 1).all():
                    torn.append(own)

    threads = [threading.Thread(target=write, args=(w * 10**6,)) for w in range(writers)]
    reader = threading.Thread(target=read)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    reader.join(60)
    assert torn == []
    assert ring.pushed == writers * per_thread
    assert len(ring.snapshot()) == min(capacity, writers * per_thread)
