from __future__ import annotations

import copy
import pickle

import pytest

from memguard_native import _core
from memguard_native.memory.sample import MemorySample

LIVE = MemorySample(
    0, 0, anon_bytes=100, malloc_in_use_bytes=60, malloc_free_bytes=30, malloc_age_ns=0
)


def test_fields_are_in_the_order_of_the_native_core():
    assert MemorySample._fields == _core.SAMPLE_FIELDS


def test_private_memory_is_anonymous_and_shared_and_swapped_out():
    sample = MemorySample(0, 0, rss_bytes=999, anon_bytes=100, shmem_bytes=20, swap_bytes=3)
    assert sample.private_bytes == 123


def test_private_memory_is_unknown_without_the_anonymous_part():
    assert MemorySample(0, 0, rss_bytes=999, shmem_bytes=20).private_bytes is None


def test_private_memory_takes_unknown_parts_as_none_at_all():
    assert MemorySample(0, 0, anon_bytes=100).private_bytes == 100


def test_live_memory_is_private_memory_without_what_malloc_keeps_free():
    assert LIVE.live_bytes == 70


@pytest.mark.parametrize(("age_ns", "live"), [(0, 70), (600 * 10**9, 70), (600 * 10**9 + 1, 100)])
def test_free_memory_that_was_counted_more_than_10_minutes_ago_is_not_taken_off(age_ns, live):
    sample = LIVE._replace(malloc_age_ns=age_ns)
    assert sample.live_bytes == live
    assert sample.malloc_is_fresh == (live == 70)


def test_live_memory_is_private_memory_where_malloc_tells_nothing():
    sample = LIVE._replace(
        malloc_in_use_bytes=None, malloc_free_bytes=None, malloc_mmap_bytes=None, malloc_age_ns=None
    )
    assert sample.live_bytes == 100
    assert not sample.malloc_is_fresh


def test_figures_of_malloc_without_an_age_are_of_the_sample():
    """As in a trace that another program wrote."""
    sample = LIVE._replace(malloc_age_ns=None)
    assert sample.live_bytes == 70
    assert sample.malloc_is_fresh


def test_live_memory_is_unknown_where_private_memory_is():
    assert LIVE._replace(anon_bytes=None).live_bytes is None


def test_a_sample_is_immutable_and_can_be_pickled_and_copied():
    sample = MemorySample(1, 2, rss_bytes=3)
    assert pickle.loads(pickle.dumps(sample)) == copy.copy(sample) == sample
    with pytest.raises(AttributeError):
        sample.rss_bytes = 4
