"""Series: the course of memory, bounded."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from memguard_native.memory.sample import MemorySample
from memguard_native.memory.series import Series

MB = 2**20


def sample(minute: float, **known) -> MemorySample:
    return MemorySample(round(minute * 60e9), 0, **known)


def test_a_point_is_in_minutes_and_mb():
    series = Series()
    series.add(sample(2, anon_bytes=5 * MB, malloc_free_bytes=MB))
    assert (series.minutes[0], series.private_mb[0], series.live_mb[0]) == (2, 5, 4)


def test_the_resident_set_stands_in_for_private_memory():
    series = Series()
    series.add(sample(0, rss_bytes=7 * MB))
    assert series.private_mb[0] == 7
    assert math.isnan(series.live_mb[0])


def test_a_sample_that_knows_nothing_is_left_out_and_counts():
    series = Series()
    series.add(sample(0))
    series.add(sample(1, rss_bytes=MB))
    assert len(series) == 1
    assert series.minute_of(1) == 1


def test_it_is_bounded_and_keeps_its_ends():
    series = Series(max_points=100)
    for minute in range(10_000):
        series.add(sample(minute, rss_bytes=minute * MB))
    assert 50 <= len(series) <= 100
    assert series.minutes[0] == 0
    assert series.minutes[-1] > 9_800
    steps = {later - earlier for earlier, later in pairwise(series.minutes)}
    assert len(steps) == 1
    assert series.minute_of(5_000) == pytest.approx(5_000, abs=128)


def test_there_is_no_minute_of_an_empty_series():
    with pytest.raises(IndexError):
        Series().minute_of(0)
