"""Which limit is met first. Pure: figures in, figures out."""

from __future__ import annotations

import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.limits import (
    MemoryLimit,
    Surroundings,
    effective_limit,
    parse_size,
    room_bytes,
)
from memguard_native.memory.sample import MemorySample

MIB, GIB = 2**20, 2**30


def sample(**fields: int) -> MemorySample:
    return MemorySample(0, 0, **fields)


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * GIB),
        ("512M", 512 * MIB),
        ("512MB", 512 * MIB),
        ("1.5 g", GIB * 3 // 2),
        ("1073741824", GIB),
        ("100B", 100),
        (" 4 KiB\n", 4096),
        ("1t", 2**40),
    ],
)
def test_a_size_is_read_with_units_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "0", "0.4", "1e9", "2 GiB B", "2X", "nan", "9" * 30, "1,5G", "٣"]
)
def test_what_is_no_size_is_refused_in_words(text):
    with pytest.raises(ConfigError) as caught:
        parse_size(text, field="MEMGUARD_LIMIT")
    assert str(caught.value) == (
        "MEMGUARD_LIMIT must be a size > 0 such as 2GiB, 512M or 1073741824 "
        f"(units are powers of 1024), got {text!r}"
    )


# --- the limit -----------------------------------------------------------------------------------


def test_without_any_limit_there_is_none():
    assert effective_limit(sample(anon_bytes=MIB), Surroundings()) is None


@pytest.mark.parametrize(
    ("surroundings", "limit_bytes", "expected"),
    [
        (Surroundings(host_bytes=8 * GIB), None, MemoryLimit(8 * GIB, "host")),
        (Surroundings(host_bytes=8 * GIB), 2 * GIB, MemoryLimit(2 * GIB, "config")),
        (Surroundings(variable_bytes=GIB), 2 * GIB, MemoryLimit(GIB, "config")),
        (Surroundings(variable_bytes=3 * GIB), 2 * GIB, MemoryLimit(2 * GIB, "config")),
        (Surroundings(host_bytes=GIB), 2 * GIB, MemoryLimit(GIB, "host")),
        (Surroundings(address_space_limit_bytes=GIB), 2 * GIB, MemoryLimit(GIB, "rlimit")),
    ],
)
def test_the_smallest_of_this_process_limits_counts(surroundings, limit_bytes, expected):
    found = effective_limit(sample(anon_bytes=MIB), surroundings, limit_bytes=limit_bytes)
    assert found == expected


def test_the_limit_of_the_group_counts_where_it_is_the_nearest():
    found = effective_limit(
        sample(anon_bytes=MIB, cgroup_limit_bytes=GIB, cgroup_private_bytes=2 * MIB),
        Surroundings(host_bytes=8 * GIB),
        limit_bytes=2 * GIB,
    )
    assert found == MemoryLimit(GIB, "cgroup")


def test_a_group_that_others_have_filled_is_nearer_than_a_smaller_limit_of_ones_own():
    full = sample(anon_bytes=300 * MIB, cgroup_limit_bytes=2 * GIB, cgroup_private_bytes=1900 * MIB)
    found = effective_limit(full, Surroundings(), limit_bytes=GIB)
    assert found == MemoryLimit(2 * GIB, "cgroup")


def test_where_no_room_is_known_the_smallest_limit_counts():
    found = effective_limit(sample(), Surroundings(host_bytes=8 * GIB), limit_bytes=GIB)
    assert found == MemoryLimit(GIB, "config")


def test_addresses_that_are_not_private_memory_are_taken_off_the_limit_on_addresses():
    surroundings = Surroundings(
        address_space_limit_bytes=4 * GIB, address_space_bytes=3 * GIB, host_bytes=3 * GIB
    )
    own = sample(anon_bytes=GIB)
    limit = effective_limit(own, surroundings)
    assert limit == MemoryLimit(2 * GIB, "rlimit")  # 2 GiB of the addresses were never touched
    assert room_bytes(own, limit) == GIB  # what is left of the addresses


def test_addresses_beyond_their_limit_leave_no_room():
    surroundings = Surroundings(address_space_limit_bytes=GIB, address_space_bytes=4 * GIB)
    own = sample(anon_bytes=MIB)
    assert room_bytes(own, effective_limit(own, surroundings)) == -MIB


# --- room ----------------------------------------------------------------------------------------


def test_room_in_a_group_is_what_the_whole_group_leaves_without_the_page_cache():
    own = sample(anon_bytes=1, cgroup_private_bytes=600 * MIB, cgroup_usage_bytes=1020 * MIB)
    assert room_bytes(own, MemoryLimit(GIB, "cgroup")) == 424 * MIB


def test_room_before_a_limit_of_ones_own_is_what_private_memory_leaves():
    own = sample(anon_bytes=100, shmem_bytes=20, swap_bytes=3, rss_bytes=500)
    assert room_bytes(own, MemoryLimit(1000, "config")) == 877


def test_room_is_told_by_the_resident_set_where_private_memory_is_unknown():
    assert room_bytes(sample(rss_bytes=500), MemoryLimit(1000, "host")) == 500


def test_room_beyond_a_limit_is_negative():
    assert room_bytes(sample(anon_bytes=1100), MemoryLimit(1000, "config")) == -100


@pytest.mark.parametrize("source", ["cgroup", "host"])
def test_room_is_unknown_where_memory_is(source):
    assert room_bytes(sample(), MemoryLimit(1000, source)) is None
