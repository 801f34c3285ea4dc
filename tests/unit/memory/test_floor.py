"""The retained floor: each rule alone, with numbers by hand."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from memguard_native.memory.floor import (
    SCALES,
    FloorGrowth,
    Refusal,
    Scale,
    judge_floor,
)

from .courses import ramp

# Lets everything pass: a test turns on the rule that it is about. Twelve blocks of ten minutes.
LENIENT = Scale(
    window_minutes=120,
    least_rate=0.001,
    scatter=9.0,
    bend=9.0,
    least_steps=0.0,
    least_last_quarter=0.0,
    least_halves=0.0,
    new_high=-9.0,
)
LINE = np.arange(12.0)


def strict(**rule) -> Scale:
    return dataclasses.replace(LENIENT, **rule)


def minutes_of(blocks: np.ndarray | list[float]) -> np.ndarray:
    """Ten minutes of each of these, from 100 MB on."""
    return 100.0 + np.repeat(np.asarray(blocks, dtype=float), 10)


def judge(blocks, scale: Scale = LENIENT, threshold: float = 10.0) -> FloorGrowth | Refusal:
    return judge_floor(minutes_of(blocks), scale, threshold)


def assert_limit(blocks, rule: str, field: str, found: float, *, is_most: bool = False) -> None:
    """A limit that is kept by a little lets the window pass; one that is missed by a little refuses
    it, by that rule alone, and the refusal tells both numbers."""
    little = 0.001 if is_most else -0.001
    assert isinstance(judge(blocks, strict(**{field: found + little})), FloorGrowth)
    refusal = judge(blocks, strict(**{field: found - little}))
    assert refusal == (rule, pytest.approx(found), pytest.approx(found - little))


# --- samples -------------------------------------------------------------------------------------


def test_a_window_that_is_not_full_is_refused():
    assert judge_floor(ramp(119, 60), LENIENT, 10.0) == ("minutes so far", 119.0, 120.0)
    assert isinstance(judge_floor(ramp(120, 60), LENIENT, 10.0), FloorGrowth)


def test_a_block_without_a_sample_is_refused():
    values = minutes_of(LINE)
    values[50:60] = np.nan
    assert judge_floor(values, LENIENT, 10.0) == ("blocks without a sample", 1.0, 0.0)


def test_one_sample_in_a_block_is_enough():
    values = minutes_of(LINE)
    values[np.arange(120) % 10 != 3] = np.nan
    assert judge_floor(values, LENIENT, 10.0) == judge(LINE)


@pytest.mark.parametrize("window", [42, 80, 130])
def test_a_line_has_one_rate_also_in_a_window_that_twelve_does_not_divide(window: int):
    growth = judge_floor(ramp(window, 60), strict(window_minutes=window), 10.0)
    assert growth[:3] == pytest.approx((60, 60, 60))


# --- the floor -----------------------------------------------------------------------------------


def test_what_is_given_back_within_a_block_is_not_in_the_floor():
    values = minutes_of(LINE)
    values[np.arange(120) % 10 != 5] += 500
    assert judge_floor(values, LENIENT, 10.0) == judge(LINE)


def test_what_is_given_back_later_in_the_window_is_not_in_the_floor():
    blocks = LINE.copy()
    blocks[2:6] = 10
    blocks[6] = 2
    assert judge(blocks).grown_mb == 11
    # So the floor of blocks 2 to 6 is the 2 of block 6.
    assert judge(blocks) == judge([0, 1, 2, 2, 2, 2, 2, 7, 8, 9, 10, 11])


def test_only_the_window_is_judged():
    assert judge([50] * 12 + list(LINE + 100)) == judge(LINE + 100)


@pytest.mark.parametrize("blocks", [np.zeros(12), -LINE, [9, 8, 7, 6, 9, 9, 9, 9, 9, 9, 9, 6]])
def test_a_floor_that_does_not_rise_is_refused(blocks):
    assert judge(blocks) == ("growth", 0.0, 0.0)


# --- what is told --------------------------------------------------------------------------------


def test_the_rate_is_the_median_slope_between_any_two_blocks():
    blocks = [0, 0, 1, 2, 6, 6, 6, 7, 8, 8, 12, 12]
    slopes = [6.0 * (blocks[j] - blocks[i]) / (j - i) for i, j in combinations(range(12), 2)]
    growth = judge(blocks)
    assert growth.rate_mb_per_hour == pytest.approx(np.median(slopes))
    assert growth.rate_low_mb_per_hour == pytest.approx(np.percentile(slopes, 5))
    assert growth.rate_high_mb_per_hour == pytest.approx(np.percentile(slopes, 95))


def test_the_growth_is_from_the_first_block_to_the_last():
    growth = judge([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20])
    assert (growth.grown_mb, growth.floor_mb) == (17, 120)


def test_a_straight_line_has_one_rate():
    growth = judge(2 * LINE)
    assert growth[:3] == pytest.approx((12, 12, 12))


# --- each rule alone -----------------------------------------------------------------------------


def test_the_rate_must_reach_the_least_of_the_scale_in_thresholds():
    # One MB in ten minutes are 6 MB/h: 3 thresholds of 2, 0.6 of 10.
    assert isinstance(judge(LINE, strict(least_rate=3.0), threshold=1.999), FloorGrowth)
    refusal = judge(LINE, strict(least_rate=3.0), threshold=2.001)
    assert refusal == ("rate", pytest.approx(6), pytest.approx(6.003))


def test_growth_must_be_more_than_memory_moves_from_one_minute_to_the_next():
    def moving_by(movement: float) -> FloorGrowth | Refusal:
        return judge_floor(minutes_of(LINE) + movement * (np.arange(120) % 2), LENIENT, 10.0)

    assert isinstance(moving_by(10.9), FloorGrowth)
    assert moving_by(11.1) == ("movement of a minute", pytest.approx(11), pytest.approx(11.1))


def test_the_beat_of_a_sawtooth_and_the_samples_is_no_leak():
    # Each tooth is met 1.2 s earlier than the one before, so its lowest sample rises for hours.
    minutes = np.arange(243)
    values = 100 + (minutes + 7.38) % 9.98 / 9.98 * 1362
    refusal = judge_floor(values, SCALES[3], 10.0)
    assert refusal.rule == "movement of a minute"
    assert refusal.limit == pytest.approx(1362 / 9.98)


def test_movement_is_between_samples_that_are_known():
    values = minutes_of(LINE) + 20.0 * (np.arange(120) % 4 < 2)
    assert isinstance(judge_floor(values, LENIENT, 10.0), FloorGrowth)
    values[1::2] = np.nan
    assert judge_floor(values, LENIENT, 10.0).rule == "movement of a minute"


@pytest.mark.parametrize(
    ("blocks", "even_steps"),
    [
        ([0] * 6 + [9] * 6, 1),
        ([0] * 3 + [9] * 3 + [18] * 6, 2),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 3),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 4], 16 / (1 + 1 + 4)),
        (LINE, 11),
    ],
)
def test_growth_must_be_worth_many_even_steps(blocks, even_steps: float):
    assert_limit(blocks, "steps", "least_steps", even_steps)


def test_the_last_quarter_must_grow_as_a_part_of_the_mean():
    # Eight steps of 1 and three of 0.5: the mean is 9.5 / 11.
    blocks = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8.5, 9, 9.5]
    assert_limit(blocks, "last quarter", "least_last_quarter", 0.5 / (9.5 / 11))


def test_the_first_half_must_grow_as_a_part_of_the_mean():
    # Five steps of 0.5 and six of 1.
    blocks = [0, 0.5, 1, 1.5, 2, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]
    assert_limit(blocks, "halves", "least_halves", 0.5 / (8.5 / 11))


def test_the_second_half_must_grow_as_a_part_of_the_mean():
    # Five steps of 1 and six of 0.5.
    blocks = [0, 1, 2, 3, 4, 5, 5.5, 6, 6.5, 7, 7.5, 8]
    assert_limit(blocks, "halves", "least_halves", 0.5 / (8 / 11))


def test_the_end_must_be_above_what_was_reached_before():
    blocks = LINE.copy()
    blocks[5] = 10.45
    assert_limit(blocks, "new high", "new_high", 0.55 / 11)


def test_the_end_must_be_above_and_not_only_as_high_as_what_was_reached_before():
    blocks = LINE.copy()
    blocks[5] = 11
    assert judge(blocks, strict(new_high=0.0)) == ("new high", 0.0, 0.0)


def test_the_last_two_blocks_are_no_high_that_was_reached_before():
    blocks = LINE.copy()
    blocks[10] = 50
    assert isinstance(judge(blocks, strict(new_high=0.1)), FloorGrowth)
    blocks[9] = 50
    assert judge(blocks, strict(new_high=0.1)).rule == "new high"


def test_no_block_may_be_far_from_the_straight_line_through_the_floor():
    blocks = np.array([0, 1, 2, 2, 2, 2, 7, 7, 8, 9, 10, 11.0])
    line = np.polyval(np.polyfit(LINE, blocks, 1), LINE)
    assert_limit(blocks, "scatter", "scatter", abs(blocks - line).max() / 11, is_most=True)


def cubic_from_line(blocks: np.ndarray) -> float:
    line, cubic = (np.polyval(np.polyfit(LINE, blocks, degree), LINE) for degree in (1, 3))
    return float(abs(cubic - line).max() / np.ptp(blocks))


def test_the_cubic_through_the_floor_may_not_be_far_from_the_line():
    blocks = np.array([0, 3, 5, 6, 7, 7.5, 8, 8.5, 9, 9.5, 10, 11])
    assert_limit(blocks, "bend", "bend", cubic_from_line(blocks), is_most=True)


def test_steps_scatter_but_hardly_bend():
    stairs = np.repeat(np.arange(6.0), 2)
    assert judge(stairs, strict(scatter=0.05)).rule == "scatter"
    assert isinstance(judge(stairs, strict(bend=0.02)), FloorGrowth)


def test_growth_that_gets_faster_may_bend_more_where_a_scale_says_so():
    faster, slower = LINE**1.5, 12**1.5 - (11 - LINE) ** 1.5
    bend = cubic_from_line(faster)
    assert cubic_from_line(slower) == pytest.approx(bend)
    assert_limit(faster, "bend", "upward_bend", bend, is_most=True)
    assert_limit(faster, "bend", "bend", bend, is_most=True)
    both = strict(bend=bend - 0.001, upward_bend=bend + 0.001)
    assert isinstance(judge(faster, both), FloorGrowth)
    assert judge(slower, both) == ("bend", pytest.approx(bend), bend - 0.001)


# --- history -------------------------------------------------------------------------------------


def after(history: list[float] | np.ndarray, scale: Scale = LENIENT) -> FloorGrowth | Refusal:
    """A line from 100 to 111 MB after this."""
    values = np.r_[np.asarray(history, dtype=float), minutes_of(LINE)]
    return judge_floor(values, scale, 10.0)


def test_the_end_must_be_a_tenth_of_the_growth_above_history():
    assert isinstance(after([109.8] * 10), FloorGrowth)
    refusal = after([109.95] * 10)
    assert refusal == ("new high in history", pytest.approx(111), pytest.approx(109.95 + 1.1))


def test_the_highest_block_of_history_counts():
    assert after([50.0] * 30 + [111.0] * 10 + [50.0] * 30).rule == "new high in history"


def test_a_peak_in_history_that_is_shorter_than_a_block_does_not_count():
    history = np.full(100, 50.0)
    history[40:49] = 500
    assert isinstance(after(history), FloorGrowth)


def test_history_that_is_shorter_than_a_block_does_not_count():
    assert isinstance(after([500.0] * 9), FloorGrowth)
    assert after([500.0] * 10).rule == "new high in history"


def test_blocks_of_history_end_where_the_window_begins():
    # 15 minutes: a block of the last ten, and five that count for nothing.
    assert isinstance(after([500.0] * 5 + [50.0] * 10), FloorGrowth)
    assert after([50.0] * 5 + [500.0] * 10).rule == "new high in history"


def test_history_that_is_not_known_is_left_out():
    assert isinstance(after([np.nan] * 40), FloorGrowth)
    assert isinstance(after([np.nan] * 20 + [50.0] * 20), FloorGrowth)
    assert after([np.nan] * 9 + [500.0]).rule == "new high in history"


def test_history_is_six_hours_with_the_window():
    assert isinstance(after([500.0] * 100 + [50.0] * 240), FloorGrowth)
    assert after([500.0] * 110 + [50.0] * 230).rule == "new high in history"
