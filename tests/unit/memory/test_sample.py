from __future__ import annotations

import copy
import pickle

import pytest

from memguard_native import _core
from memguard_native.memory.sample import MemorySample


def test_fields_are_in_the_order_of_the_native_core():
    assert MemorySample._fields == _core.SAMPLE_FIELDS


def test_private_memory_is_anonymous_and_shared_and_swapped_out():
    sample = MemorySample(0, 0, rss_bytes=999, anon_bytes=100, shmem_bytes=20, swap_bytes=3)
    assert sample.private_bytes == 123


def test_private_memory_is_unknown_without_the_anonymous_part():
    assert MemorySample(0, 0, rss_bytes=999, shmem_bytes=20).private_bytes is None


def test_private_memory_takes_unknown_parts_as_none_at_all():
    assert MemorySample(0, 0, anon_bytes=100).private_bytes == 100


def test_a_sample_is_immutable_and_can_be_pickled_and_copied():
    sample = MemorySample(1, 2, rss_bytes=3)
    assert pickle.loads(pickle.dumps(sample)) == copy.copy(sample) == sample
    with pytest.raises(AttributeError):
        sample.rss_bytes = 4
