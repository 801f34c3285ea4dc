"""The cause of a growth: every row of the table, with what is known on every side of its limits."""

from __future__ import annotations

import numpy as np
import pytest

from memguard_native.memory.attribution import CAUSES, PARTS, Attribution, attribute
from memguard_native.memory.minutes import MinuteSeries

from .courses import series_of

WINDOW = 120
HOURS = np.arange(WINDOW) / 60.0


def grown(
    *,
    arenas: float | None = None,
    in_use: float | None = 0.0,
    free: float | None = 0.0,
    shared: float = 0.0,
    other: float = 0.0,
    blocks: float | None = 0.0,
    threads: float | None = 0.0,
) -> MinuteSeries:
    """Two hours in which each part grows so many MB an hour, from 100 MB on; None is not known.
    `blocks` and `threads` grow by so many an hour."""
    parts = {"arenas_mb": arenas, "in_use_mb": in_use, "free_mb": free, "shared_mb": shared}
    columns = {name: 100 + rate * HOURS for name, rate in parts.items() if rate is not None}
    private = 100 + other * HOURS + sum(columns.values())
    for name, rate in {"python_blocks": blocks, "threads": threads}.items():
        if rate is not None:
            columns[name] = 100_000 + rate * HOURS
    return series_of(private, **columns)


def cause_of(*, fragmented: bool = False, **rates: float | None) -> Attribution:
    return attribute(grown(**rates), WINDOW, fragmented=fragmented)


# --- the parts -----------------------------------------------------------------------------------


def test_every_part_has_its_rate_in_mb_per_hour():
    found = cause_of(arenas=5, in_use=30, free=-3, shared=2, other=7)
    assert found.parts_mb_per_hour == pytest.approx(
        {"python_arenas": 5, "malloc_in_use": 30, "malloc_free": -3, "shared": 2, "other": 7}
    )
    assert set(found.parts_mb_per_hour) == set(PARTS)


def test_parts_that_are_not_known_are_left_out():
    found = cause_of(in_use=None, free=None, shared=0, other=20)
    assert found.parts_mb_per_hour == pytest.approx({"shared": 0, "other": 20})


def test_only_the_window_counts():
    series = series_of(
        np.r_[np.linspace(900, 100, 60), 100 + 30 * HOURS],
        in_use_mb=np.r_[np.linspace(50, 90, 60), np.full(WINDOW, 90)],
        free_mb=0,
    )
    parts = attribute(series, WINDOW, fragmented=False).parts_mb_per_hour
    assert parts == pytest.approx({"malloc_in_use": 0, "malloc_free": 0, "other": 30})


def test_a_peak_in_each_of_twelve_blocks_does_not_count():
    peaks = np.where(np.arange(WINDOW) % 10 < 4, 500, 0)
    series = series_of(1000 + peaks + 30 * HOURS, in_use_mb=100 + peaks + 30 * HOURS)
    parts = attribute(series, WINDOW, fragmented=False).parts_mb_per_hour
    assert parts["malloc_in_use"] == pytest.approx(30)
    assert parts["other"] == pytest.approx(0)


def test_the_largest_part_names_the_cause():
    assert cause_of(in_use=20, shared=21, other=19).cause == "shared-memory"
    assert cause_of(in_use=21, shared=20, other=19).cause == "native-heap"
    assert cause_of(in_use=19, shared=20, other=21).cause == "mmap"


# --- shared memory -------------------------------------------------------------------------------


def test_shared_memory_is_shared_memory_whatever_the_blocks_are():
    assert cause_of(shared=30).cause == "shared-memory"
    assert cause_of(shared=30, blocks=1e6).cause == "shared-memory"
    assert cause_of(shared=30, blocks=None, in_use=None, free=None).cause == "shared-memory"


# --- malloc --------------------------------------------------------------------------------------


def test_memory_of_malloc_with_200_blocks_for_each_mb_is_of_python_objects():
    assert cause_of(in_use=30, blocks=30 * 201.0).cause == "python-objects"
    assert cause_of(in_use=30, blocks=30 * 199.0).cause == "native-heap"


def test_memory_of_malloc_without_a_count_of_blocks_is_native():
    found = cause_of(in_use=30, blocks=None)
    assert found.cause == "native-heap"
    assert "unknown" in found.text


def test_the_text_tells_how_many_objects_an_mb_has():
    assert "5000 for each MB" in cause_of(in_use=30, blocks=150_000).text


# --- what malloc keeps free ----------------------------------------------------------------------


def test_free_memory_of_malloc_is_fragmentation_where_private_memory_alone_grows():
    assert cause_of(in_use=2, free=30, fragmented=True).cause == "fragmentation"


def test_free_memory_of_malloc_does_not_compete_where_live_memory_grows():
    assert cause_of(in_use=2, free=30, blocks=0).cause == "native-heap"


# --- the arenas of Python ------------------------------------------------------------------------


def test_arenas_with_500_blocks_for_each_mb_are_of_python_objects():
    assert cause_of(arenas=30, blocks=30 * 501.0).cause == "python-objects"


def test_arenas_with_fewer_blocks_are_pools_that_single_objects_keep():
    found = cause_of(arenas=30, blocks=30 * 499.0)
    assert found.cause == "fragmentation"
    assert "pools" in found.text
    assert cause_of(arenas=30, blocks=0).cause == "fragmentation"


def test_arenas_without_a_count_of_blocks_are_unknown():
    assert cause_of(arenas=30, blocks=None).cause == "unknown"


def test_arenas_are_told_by_the_blocks_where_they_are_not_counted():
    assert cause_of(other=30, blocks=30 * 501.0).cause == "python-objects"
    assert cause_of(other=30, blocks=30 * 499.0).cause == "fragmentation"
    assert cause_of(other=30, blocks=30 * 31.0).cause == "fragmentation"
    assert cause_of(other=30, blocks=30 * 29.0).cause == "mmap"


# --- the rest ------------------------------------------------------------------------------------


def test_the_rest_is_of_mappings_where_malloc_and_arenas_are_counted():
    assert cause_of(arenas=0, other=30, blocks=0).cause == "mmap"
    assert cause_of(arenas=0, other=30, blocks=30_000).cause == "mmap"


def test_the_rest_without_a_count_of_blocks_is_unknown():
    assert cause_of(other=30, blocks=None).cause == "unknown"


def test_without_malloc_the_rest_is_of_python_objects_if_it_has_200_blocks_for_each_mb():
    no_malloc = {"in_use": None, "free": None}
    assert cause_of(other=30, blocks=30 * 201.0, **no_malloc).cause == "python-objects"
    assert cause_of(other=30, blocks=30 * 199.0, **no_malloc).cause == "unknown"
    assert cause_of(arenas=0, other=30, blocks=30 * 201.0, **no_malloc).cause == "python-objects"


def test_without_malloc_large_memory_may_be_of_a_heap_or_of_mappings():
    found = cause_of(arenas=0, other=30, blocks=0, in_use=None, free=None)
    assert found.cause == "unknown"
    assert "malloc" in found.text


def test_without_malloc_arenas_are_told_as_with_it():
    no_malloc = {"in_use": None, "free": None}
    assert cause_of(arenas=30, blocks=30 * 501.0, **no_malloc).cause == "python-objects"
    assert cause_of(arenas=30, blocks=30 * 499.0, **no_malloc).cause == "fragmentation"


# --- figures that come and go --------------------------------------------------------------------


def test_figures_of_malloc_that_cease_are_no_growth_of_mappings():
    # At half of the window 500 MB are not told apart any more; a leak of Python goes on.
    known = np.arange(WINDOW) < WINDOW // 2
    series = series_of(
        700 + 30 * HOURS,
        in_use_mb=np.where(known, 500 + 30 * HOURS, np.nan),
        free_mb=np.where(known, 20, np.nan),
        python_blocks=100_000 + 30_000 * HOURS,
    )
    found = attribute(series, WINDOW, fragmented=False)
    assert found.parts_mb_per_hour == pytest.approx({"other": 30})
    assert found.cause == "python-objects"


def test_figures_of_malloc_that_begin_are_no_growth_of_malloc():
    known = np.arange(WINDOW) >= WINDOW // 2
    series = series_of(
        700 + 30 * HOURS,
        in_use_mb=np.where(known, 500, np.nan),
        free_mb=np.where(known, 20, np.nan),
        python_blocks=100_000,
    )
    found = attribute(series, WINDOW, fragmented=False)
    assert found.parts_mb_per_hour == pytest.approx(
        {"malloc_in_use": 0, "malloc_free": 0, "other": 30}
    )
    assert found.cause == "mmap"


def test_blocks_need_not_be_counted_in_every_minute():
    counted = np.arange(WINDOW) % 7 == 0
    blocks = np.where(counted, 100_000 + 30_000 * HOURS, np.nan)
    series = series_of(100 + 30 * HOURS, in_use_mb=30 * HOURS, python_blocks=blocks)
    assert attribute(series, WINDOW, fragmented=False).cause == "python-objects"


# --- threads -------------------------------------------------------------------------------------


def test_three_new_threads_an_hour_with_little_memory_are_stacks_of_threads():
    found = cause_of(other=2, threads=3.1)
    assert found.cause == "mmap"
    assert found.text.startswith("thread stacks: 3.1 new threads an hour")
    assert "thread" not in cause_of(other=2, threads=2.9).text


def test_threads_with_more_than_an_mb_each_are_not_the_cause():
    assert "thread stacks" in cause_of(in_use=9.9, threads=10).text
    assert cause_of(in_use=10.1, threads=10).cause == "native-heap"


def test_threads_are_counted_by_live_memory():
    assert "thread stacks" in cause_of(in_use=5, free=500, threads=10).text


def test_threads_are_the_cause_only_where_live_memory_is_known():
    # One sample with malloc's figures: live memory is not known before, nor how it grows.
    last = np.r_[np.full(WINDOW - 1, np.nan), 1.0]
    series = series_of(100 + 30 * HOURS, free_mb=last, threads=100 + 10 * HOURS)
    assert attribute(series, WINDOW, fragmented=False).cause == "unknown"


# --- nothing to tell -----------------------------------------------------------------------------


def test_shrinking_parts_are_no_cause():
    found = cause_of(in_use=-5, other=-1)
    assert (found.cause, found.text) == ("unknown", "no part of memory grows")


def test_a_series_that_is_too_short_has_no_cause():
    found = attribute(series_of([100.0]), WINDOW, fragmented=False)
    assert found == ("unknown", "nothing is known of the parts of memory", {})
    assert attribute(MinuteSeries(), WINDOW, fragmented=False) == found


def test_every_cause_is_one_of_the_list():
    found = {
        cause_of(in_use=30, blocks=30_000).cause,
        cause_of(in_use=30).cause,
        cause_of(free=30, fragmented=True).cause,
        cause_of(other=30).cause,
        cause_of(shared=30).cause,
        cause_of().cause,
    }
    assert found == set(CAUSES)
