"""MinuteSeries: samples folded into minutes, and the columns that are made of them."""

from __future__ import annotations

import numpy as np
import pytest

from memguard_native.memory.minutes import HISTORY_MINUTES, MinuteSeries

from .courses import sample, samples, series_of

COLUMNS = (
    "private", "malloc_free", "malloc_in_use", "python_arenas", "shared", "blocks", "threads",
    "gpu", "load", "live", "other",
)  # fmt: skip


def filled(*given, minute_s: float = 60.0) -> MinuteSeries:
    series = MinuteSeries(minute_s)
    for each in given:
        series.add(each)
    return series


def values(series: MinuteSeries, name: str) -> list[float | None]:
    return [None if np.isnan(value) else value for value in series.column(name)]


# --- which minute --------------------------------------------------------------------------------


def test_the_first_sample_is_in_minute_0_whatever_the_clock_says():
    series = filled(sample(12345.6, 1))
    assert (series.minute, series.minutes) == (0, 1)


def test_a_sample_belongs_to_the_nearest_minute():
    series = MinuteSeries()
    minutes = []
    for minute in (0, 0.98, 2.01, 2.99, 4.02):
        series.add(sample(minute, 1))
        minutes.append(series.minute)
    assert minutes == [0, 1, 2, 3, 4]


def test_half_minutes_are_rounded_up_so_that_each_minute_has_as_many_samples():
    series = MinuteSeries()
    begun = [series.add(sample(half / 2, 1)) for half in range(9)]
    assert begun == [True, True, False, True, False, True, False, True, False]


def test_minute_s_says_how_many_seconds_stand_for_a_minute():
    series = filled(sample(0, 1), sample(1, 2), minute_s=0.25)
    assert series.minute == 240


def test_add_tells_whether_a_sample_is_the_first_of_its_minute():
    series = MinuteSeries()
    assert series.add(sample(0, 5))
    assert not series.add(sample(0.1, 4))
    assert series.add(sample(1, 5))


def test_a_minute_without_a_sample_is_not_known():
    series = filled(sample(0, 1, load=1), sample(2, 3, load=3))
    assert values(series, "private") == [1, None, 3]
    assert values(series, "load") == [1, None, 3]


def test_a_sample_from_before_the_newest_minute_comes_too_late():
    series = filled(sample(0, 5), sample(2, 7))
    assert not series.add(sample(1, 1))
    assert values(series, "private") == [5, None, 7]


def test_a_clock_that_was_set_back_is_waited_for():
    series = filled(*samples([5] * 10, first=100), *samples([1] * 10, first=20))
    assert series.minute == 9
    assert series.add(sample(110, 3))
    assert values(series, "private") == [5] * 10 + [3]


def test_a_sample_from_before_the_first_one_is_left_out():
    series = filled(sample(100, 5))
    assert not series.add(sample(99, 1))
    assert values(series, "private") == [5]


# --- how far back --------------------------------------------------------------------------------


def test_nothing_is_known_before_the_first_sample():
    series = MinuteSeries()
    assert (series.minute, series.minutes) == (-1, 0)
    assert all(len(series.column(name)) == 0 for name in COLUMNS)


def test_every_column_is_as_long_as_the_minutes_there_are():
    series = filled(sample(0, 1), sample(6, 1))
    assert {len(series.column(name)) for name in COLUMNS} == {7}


def test_six_hours_are_looked_back_at():
    series = series_of(range(400))
    assert (series.minute, series.minutes, HISTORY_MINUTES) == (399, 360, 360)
    assert values(series, "private") == list(range(40, 400))


def test_a_gap_of_six_hours_leaves_nothing_but_the_newest_minute():
    series = filled(*samples([5] * 100), sample(100 + 10_000, 7))
    assert (series.minute, series.minutes) == (10_100, 360)
    assert values(series, "private") == [None] * 359 + [7]


def test_a_gap_within_six_hours_keeps_what_is_before_it():
    series = filled(*samples([5] * 10), sample(300, 7))
    assert values(series, "private") == [5] * 10 + [None] * 290 + [7]


# --- which sample of a minute --------------------------------------------------------------------


def test_of_a_minute_the_sample_with_the_least_memory_is_kept():
    series = filled(sample(0, 5), sample(0.1, 3), sample(0.2, 4))
    assert values(series, "private") == [3]


def test_of_a_minute_the_sample_with_the_least_live_memory_is_kept():
    series = filled(sample(0, 100, free_mb=10), sample(0.2, 120, free_mb=50))
    assert values(series, "private") == [120]
    assert values(series, "live") == [70]


def test_all_columns_of_a_minute_come_from_the_same_sample():
    series = filled(sample(0, 5, load=9, threads=3), sample(0.2, 4, load=1))
    assert values(series, "load") == [1]
    assert values(series, "threads") == [None]


def test_the_least_of_a_minute_is_not_that_of_the_minute_before():
    series = filled(sample(0, 1), sample(1, 9), sample(1.1, 5))
    assert values(series, "private") == [1, 5]


# --- what a sample tells -------------------------------------------------------------------------


def test_amounts_are_in_mb_and_counts_as_they_are():
    series = filled(
        sample(
            0, 96, free_mb=1.5, in_use_mb=40, arenas_mb=20, shared_mb=2, gpu_mb=512,
            python_blocks=1000, threads=7, load=2.5,
        )
    )  # fmt: skip
    found = {name: series.column(name)[0] for name in COLUMNS}
    assert found == {
        "private": 96, "malloc_free": 1.5, "malloc_in_use": 40, "python_arenas": 20, "shared": 2,
        "gpu": 512, "blocks": 1000, "threads": 7, "load": 2.5, "live": 94.5, "other": 32.5,
    }  # fmt: skip


def test_private_memory_counts_shared_and_swapped_memory():
    series = filled(sample(0, anon_bytes=5 * 2**20, shared_mb=3, swap_mb=2))
    assert values(series, "private") == [10]


def test_the_resident_set_stands_in_for_private_memory():
    assert values(filled(sample(0, rss_mb=5)), "private") == [5]
    assert values(filled(sample(0, 3, rss_mb=5)), "private") == [3]


def test_a_sample_that_knows_neither_is_left_out():
    series = MinuteSeries()
    assert not series.add(sample(0, load=1, free_mb=3))
    assert series.add(sample(7, 5))
    assert (series.minute, values(series, "private")) == (0, [5])


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in ("live", "other")][1:])
def test_what_a_sample_does_not_tell_is_not_known(name: str):
    assert values(filled(sample(0, 5)), name) == [None]


# --- live memory ---------------------------------------------------------------------------------


def test_live_memory_is_private_memory_without_what_malloc_keeps_free():
    series = series_of([10, 12], free_mb=[3, 4])
    assert values(series, "live") == [7, 8]


def test_live_memory_is_private_memory_where_malloc_tells_nothing():
    assert values(series_of([10, 12]), "live") == [10, 12]


def test_when_malloc_ceases_to_tell_live_memory_is_private_memory_all_along():
    series = series_of([10, 12, 14], free_mb=[3, 4, np.nan])
    assert values(series, "live") == [10, 12, 14]


def test_before_malloc_began_to_tell_live_memory_is_not_known():
    series = series_of([10, 12, 14], free_mb=[np.nan, 4, 5])
    assert values(series, "live") == [None, 8, 9]


def test_figures_of_malloc_older_than_ten_minutes_are_not_known():
    carried = {"free_mb": 3, "in_use_mb": 5}
    fresh = filled(sample(0, 10, malloc_age_ns=600 * 10**9, **carried))
    stale = filled(sample(0, 10, malloc_age_ns=600 * 10**9 + 1, **carried))
    assert [values(fresh, name) for name in ("malloc_free", "malloc_in_use")] == [[3], [5]]
    assert [values(stale, name) for name in ("malloc_free", "malloc_in_use")] == [[None], [None]]


# --- the rest ------------------------------------------------------------------------------------


def test_other_memory_is_private_memory_without_all_that_is_told_apart():
    series = series_of([100, 110], free_mb=10, in_use_mb=40, arenas_mb=[20, 21], shared_mb=5)
    assert values(series, "other") == [25, 34]


def test_what_is_never_told_apart_is_in_other_memory():
    assert values(series_of([100, 110], shared_mb=5), "other") == [95, 105]


def test_when_malloc_ceases_to_tell_its_memory_is_in_other_memory_all_along():
    nan = np.nan
    series = series_of([100, 101, 102], free_mb=[10, 10, nan], in_use_mb=[40, 40, nan])
    assert values(series, "other") == [100, 101, 102]


def test_before_malloc_began_to_tell_other_memory_is_not_known():
    series = series_of([100, 101, 102], in_use_mb=[np.nan, 40, 41])
    assert values(series, "other") == [None, 61, 61]


def test_columns_that_are_made_do_not_change_the_series():
    series = series_of([100, 101], in_use_mb=40, free_mb=1)
    before = series.column("private").copy()
    series.column("live")[:] = 0
    series.column("other")[:] = 0
    assert (series.column("private") == before).all()
