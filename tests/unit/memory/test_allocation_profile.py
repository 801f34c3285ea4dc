from __future__ import annotations

import ctypes
import json
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from memguard_native import _core
from memguard_native.memory.allocation_profile import (
    NativeProfile,
    TracemallocProfile,
    best_profile,
)

Frame = tuple[str, str, int]

EVERY_BYTE = 1  # then every block is a sample

sampled = pytest.mark.skipif(
    not _core.HAS_ALLOCATION_PROFILE, reason="this Python's allocations cannot be sampled"
)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    tracemalloc.stop()
    _core.stop_allocation_profile()


def keep(kept: list[object], count: int, size: int) -> None:
    for _ in range(count):
        kept.append(bytearray(size))


def stacks(
    found: dict[str, object],
) -> list[tuple[int, int, int, tuple[tuple[str, str, int], ...]]]:
    return found["stacks"]


def of_function(found: dict[str, object], name: str) -> int:
    return sum(row[0] for row in stacks(found) if row[3] and row[3][0][0] == name)


@sampled
def test_what_is_alive_is_found_with_the_code_that_asked_for_it():
    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    keep(kept, 100, 10_000)
    found = _core.stop_allocation_profile()
    [row] = [row for row in stacks(found) if row[0] > 500_000]
    assert row[0] == pytest.approx(100 * 10_001, rel=0.01)
    assert row[2] >= 100
    name, file, line = row[3][0]
    assert (name, file) == ("keep", __file__)
    assert line == keep.__code__.co_firstlineno + 2
    assert "test_what_is_alive" in row[3][1][0]


@sampled
def test_what_was_released_is_not_in_it():
    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    keep(kept, 100, 10_000)
    kept.clear()
    assert of_function(_core.stop_allocation_profile(), "keep") < 10_000


@sampled
def test_a_block_that_grows_is_counted_once_at_its_last_size():
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    block = bytearray(100)
    for size in range(1000, 200_000, 5000):
        block.extend(bytes(size - len(block)))
    found = _core.stop_allocation_profile()
    assert max(row[0] for row in stacks(found)) < 2 * len(block)


@sampled
def test_blocks_from_before_and_blocks_that_outlive_it_are_released_as_ever():
    before: list[object] = []
    keep(before, 1000, 1000)
    during: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    keep(during, 1000, 1000)
    before.clear()
    _core.stop_allocation_profile()
    during.clear()
    keep(before, 1000, 1000)


@sampled
def test_the_estimate_is_near_the_truth_when_few_blocks_are_sampled():
    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=64 * 1024)
    keep(kept, 30_000, 1000)
    found = _core.stop_allocation_profile()
    # About 480 samples: four standard deviations are 18 %.
    assert of_function(found, "keep") == pytest.approx(30_000 * 1057, rel=0.18)
    assert 300 < found["samples"] < 700


@sampled
def test_no_more_than_16_frames_are_told():
    def deep(level: int, kept: list[object]) -> None:
        if level:
            deep(level - 1, kept)
        else:
            keep(kept, 1, 100_000)

    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    deep(40, kept)
    found = _core.stop_allocation_profile()
    [row] = [row for row in stacks(found) if row[0] > 90_000]
    assert len(row[3]) == 16


@sampled
def test_a_full_table_drops_samples_and_counts_them():
    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    keep(kept, 5000, 100)
    found = _core.stop_allocation_profile()
    assert found["dropped"] >= 5000
    assert sum(row[2] for row in stacks(found)) <= 4096


@sampled
def test_generators_and_coroutines_have_their_place_in_the_stack():
    async def asynchronous(kept: list[object]) -> None:
        keep(kept, 1, 300_000)

    def generator(kept: list[object]) -> Iterator[None]:
        with pytest.raises(StopIteration):
            asynchronous(kept).send(None)
        yield

    kept: list[object] = []
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    list(generator(kept))
    found = _core.stop_allocation_profile()
    [row] = [row for row in stacks(found) if row[0] > 250_000]
    names = [name.rpartition(".")[2] for name, _, _ in row[3]]
    assert names[:3] == ["keep", "asynchronous", "generator"]


@sampled
def test_two_profiles_at_once_are_refused():
    _core.start_allocation_profile(seconds=60.0)
    with pytest.raises(RuntimeError, match="a profile runs already"):
        _core.start_allocation_profile(seconds=60.0)


@sampled
@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": float("nan")}])
def test_a_length_of_nothing_is_refused(wrong):
    with pytest.raises(RuntimeError, match="must be > 0"):
        _core.start_allocation_profile(**wrong)


def test_stopping_what_was_not_started_tells_nothing():
    assert _core.stop_allocation_profile() is None
    _core.forget_allocation_profile()


@sampled
def test_a_profile_can_be_started_again():
    for _ in range(3):
        kept: list[object] = []
        _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
        keep(kept, 10, 10_000)
        found = _core.stop_allocation_profile()
        assert of_function(found, "keep") == pytest.approx(100_000, rel=0.1)


@sampled
def test_code_is_not_kept_alive_by_a_profile_that_has_ended():
    scope: dict[str, object] = {}
    exec("def make(): return bytearray(50_000)", scope)
    code = scope["make"].__code__  # type: ignore[attr-defined]
    references = sys.getrefcount(code)
    _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
    kept = scope["make"]()  # type: ignore[operator]
    assert sys.getrefcount(code) == references + 1
    assert of_function(_core.stop_allocation_profile(), "make") > len(kept)
    assert sys.getrefcount(code) == references


@sampled
def test_forgetting_ends_it_without_a_look():
    _core.start_allocation_profile(seconds=60.0)
    _core.forget_allocation_profile()
    assert _core.stop_allocation_profile() is None


class Allocator(ctypes.Structure):
    """PyMemAllocatorEx."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]


def allocators() -> list[bytes]:
    found = []
    for domain in (1, 2):  # PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ
        allocator = Allocator()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(allocator))
        found.append(bytes(allocator))
    return found


@sampled
@pytest.mark.parametrize("end", [_core.stop_allocation_profile, _core.forget_allocation_profile])
def test_a_profile_that_has_ended_leaves_the_allocators_as_they_were(end):
    before = allocators()
    _core.start_allocation_profile(seconds=60.0)
    assert all(now != then for now, then in zip(allocators(), before, strict=True))
    end()
    assert allocators() == before


@sampled
def test_hooks_that_tracemalloc_covered_leave_when_it_has_gone():
    before = allocators()
    _core.start_allocation_profile(seconds=60.0)
    tracemalloc.start()
    _core.stop_allocation_profile()
    tracemalloc.stop()
    assert allocators() != before
    assert _core.stop_allocation_profile() is None
    assert allocators() == before


# --- beside others who hook in --------------------------------------------------------------------


@sampled
@pytest.mark.parametrize("order", ["inside", "outside", "before", "after"])
def test_tracemalloc_may_come_and_go_in_any_order(order):
    """Each leaves the other's hooks in place, and a second round finds all of its blocks."""
    for _ in range(3):
        kept: list[object] = []
        if order in ("outside", "before"):
            tracemalloc.start()
        _core.start_allocation_profile(seconds=60.0, interval_bytes=EVERY_BYTE)
        if order in ("inside", "after"):
            tracemalloc.start()
        keep(kept, 50, 10_000)
        assert tracemalloc.get_traced_memory()[0] > 500_000
        if order in ("inside", "before"):
            tracemalloc.stop()
        found = _core.stop_allocation_profile()
        tracemalloc.stop()
        assert of_function(found, "keep") == pytest.approx(500_000, rel=0.1)
        kept.clear()
    _core.stop_allocation_profile()


# --- the two kinds --------------------------------------------------------------------------------


@sampled
def test_the_native_profile_tells_sites_by_what_lasts():
    kept: list[object] = []
    profile = NativeProfile(interval_bytes=EVERY_BYTE)
    profile.start(60.0)
    keep(kept, 10, 50_000)
    found = profile.stop()
    assert json.loads(json.dumps(found)) == found
    assert found["kind"] == "sampled"
    assert found["live_bytes"] > 500_000
    frames = [site["stack"][0] for site in found["sites"]]
    assert {
        "function": "keep",
        "file": __file__,
        "line": keep.__code__.co_firstlineno + 2,
    } in frames


@sampled
def test_a_line_that_allocates_in_several_places_is_one_site():
    profile = NativeProfile(interval_bytes=EVERY_BYTE)
    profile.start(60.0)
    kept = [bytearray(50_000), bytearray(40_000), bytearray(30_000)]
    found = profile.stop()
    here = [site for site in found["sites"] if site["live_bytes"] > 20_000]
    assert len(here) == 1
    assert here[0]["live_bytes"] > sum(map(len, kept))


@sampled
def test_a_native_profile_that_somebody_else_ended_says_so():
    profile = NativeProfile()
    profile.start(60.0)
    _core.stop_allocation_profile()
    with pytest.raises(RuntimeError, match="ended by somebody else"):
        profile.stop()


@sampled
def test_a_cancelled_native_profile_is_over():
    profile = NativeProfile()
    profile.start(60.0)
    profile.cancel()
    profile.start(60.0)


def test_tracemalloc_tells_the_lines_that_grew():
    tracemalloc.start()
    profile = TracemallocProfile(block_count=lambda: 1000)
    profile.start(60.0)
    kept: list[object] = []
    keep(kept, 100, 10_000)
    found = profile.stop()
    assert json.loads(json.dumps(found)) == found
    assert found["growth_bytes"] > 900_000
    site = found["sites"][0]
    assert site["growth_bytes"] == pytest.approx(1_000_000, rel=0.1)
    assert site["stack"][0]["file"] == __file__
    assert site["stack"][0]["line"] == keep.__code__.co_firstlineno + 2
    assert tracemalloc.is_tracing()


def test_tracemalloc_that_was_stopped_meanwhile_is_an_error():
    tracemalloc.start()
    profile = TracemallocProfile(block_count=lambda: 1000)
    profile.start(60.0)
    tracemalloc.stop()
    with pytest.raises(RuntimeError, match="was stopped"):
        profile.stop()


def test_no_snapshot_is_made_of_very_many_blocks():
    tracemalloc.start()
    with pytest.raises(RuntimeError, match="5,000,000 blocks are too many"):
        TracemallocProfile(lambda: 5_000_000).start(60.0)


def test_the_sampled_profile_is_the_usual_one():
    assert isinstance(best_profile(), NativeProfile)


def test_tracemalloc_is_used_if_the_user_started_it():
    tracemalloc.start()
    assert isinstance(best_profile(), TracemallocProfile)


@pytest.mark.skipif(_core.HAS_ALLOCATION_PROFILE, reason="this Python's allocations are sampled")
def test_where_allocations_cannot_be_sampled_the_reason_is_told():
    with pytest.raises(RuntimeError, match="no GIL"):
        NativeProfile().start(60.0)
