"""Slopes: medians over pairs, and the test for a trend."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from memguard_native.memory.slopes import (
    mann_kendall_z,
    median,
    pairwise_slopes,
    quantile,
    rate_of_medians,
    theil_sen,
)

from .courses import ramp

NAN = np.nan


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


# --- quantiles -----------------------------------------------------------------------------------


def test_a_quantile_lies_between_its_neighbours():
    ordered = array(0, 10, 20, 40, 80)
    assert [quantile(ordered, share) for share in (0, 0.25, 0.3, 0.5, 0.9, 1)] == [
        0, 10, 12, 20, 64, 80
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 12, 66])
def test_quantiles_are_those_of_numpy(count: int):
    values = np.random.default_rng(count).normal(0, 100, count)
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        found = quantile(np.sort(values), share)
        assert found == pytest.approx(np.quantile(values, share))
    assert median(values) == pytest.approx(np.median(values))


def test_a_median_does_not_reorder_its_values():
    values = array(3, 1, 2)
    assert median(values) == 2
    assert values.tolist() == [3, 1, 2]


# --- Theil and Sen -------------------------------------------------------------------------------


def test_there_is_a_slope_between_any_two_values():
    assert pairwise_slopes(array(0, 1, 4), array(0, 1, 2)).tolist() == [1, 2, 3]


def test_slopes_are_by_the_times_of_the_values():
    assert pairwise_slopes(array(0, 1, 4), array(5, 5.5, 7)).tolist() == [2, 2, 2]


def test_values_that_are_not_known_have_no_slopes():
    assert pairwise_slopes(array(0, NAN, 4), array(0, 1, 2)).tolist() == [2]


def test_theil_sen_is_the_median_of_the_slopes():
    assert theil_sen(array(0, 1, 4), array(0, 1, 2)) == 2


def test_theil_sen_is_not_moved_by_a_wild_value():
    values = np.arange(20.0)
    values[7] = 10_000
    assert theil_sen(values, np.arange(20.0)) == 1


@pytest.mark.parametrize("values", [array(), array(1), array(NAN, 3, NAN)])
def test_there_is_no_slope_of_fewer_than_two_values(values: np.ndarray):
    assert math.isnan(theil_sen(values, np.arange(float(len(values)))))


# --- Mann and Kendall ----------------------------------------------------------------------------


def test_a_series_that_only_rises_has_the_z_of_the_textbook():
    # S = 10 pairs of 5 values, variance 5 * 4 * 15 / 18; one is taken off S for its continuity.
    assert mann_kendall_z(array(1, 2, 3, 4, 5)) == pytest.approx(9 / math.sqrt(300 / 18))


def test_a_series_that_only_falls_has_the_same_z_below_zero():
    assert mann_kendall_z(array(5, 4, 3, 2, 1)) == pytest.approx(-9 / math.sqrt(300 / 18))


def test_how_far_it_rises_does_not_count():
    assert mann_kendall_z(array(1, 2, 3, 4, 5)) == mann_kendall_z(array(1, 2, 3, 4, 900))


def test_pairs_that_do_not_differ_count_for_neither():
    assert mann_kendall_z(array(3, 3, 3, 3)) == 0
    # Five pairs rise, one is even.
    assert mann_kendall_z(array(1, 2, 2, 3)) == pytest.approx(4 / math.sqrt(4 * 3 * 13 / 18))


def test_of_fewer_than_three_values_there_is_no_trend():
    assert mann_kendall_z(array(1, 2)) == 0
    assert mann_kendall_z(array(1, 2, 3)) > 0


def test_values_that_are_not_known_are_left_out_of_the_trend():
    assert mann_kendall_z(array(1, NAN, 2, 3, NAN)) == mann_kendall_z(array(1, 2, 3))
    assert mann_kendall_z(array(1, NAN, NAN, 3)) == 0


# --- medians of blocks ---------------------------------------------------------------------------


def test_a_rate_is_per_hour_with_a_value_each_minute():
    assert rate_of_medians(ramp(120, 30), 120) == pytest.approx(30)


def test_a_window_need_not_be_a_multiple_of_its_blocks():
    assert rate_of_medians(ramp(42, 30), 42) == pytest.approx(30)


def test_only_the_window_counts():
    values = np.concatenate([ramp(300, -500), ramp(120, 30)])
    assert rate_of_medians(values, 120) == pytest.approx(30)


def test_of_a_shorter_series_all_counts():
    assert rate_of_medians(ramp(60, 30), 120) == pytest.approx(30)


def test_a_peak_in_each_block_does_not_count():
    values = ramp(120, 30)
    values[::10] += 500
    assert rate_of_medians(values, 120) == pytest.approx(30, rel=0.05)


def test_blocks_are_a_twelfth_of_the_window():
    values = np.random.default_rng(1).uniform(0, 100, 36)
    medians = [sorted(values[i : i + 3])[1] for i in range(0, 36, 3)]
    slopes = [(medians[j] - medians[i]) / ((j - i) * 3 / 60) for i, j in combinations(range(12), 2)]
    assert rate_of_medians(values, 36) == pytest.approx(np.median(slopes))


def test_minutes_that_are_not_known_are_left_out_of_their_block():
    values = ramp(120, 30)
    values[1::2] = NAN
    assert rate_of_medians(values, 120) == pytest.approx(30)


def test_blocks_that_are_not_known_are_left_out():
    values = ramp(120, 30)
    values[20:60] = NAN
    assert rate_of_medians(values, 120) == pytest.approx(30)


@pytest.mark.parametrize(
    "values", [array(), np.full(120, NAN), np.r_[np.full(115, NAN), np.ones(5)]]
)
def test_there_is_no_rate_of_fewer_than_two_blocks(values: np.ndarray):
    assert math.isnan(rate_of_medians(values, 120))
