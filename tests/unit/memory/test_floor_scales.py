"""The scales of the retained floor: what each of them says of shapes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from memguard_native.memory.floor import (
    LIMIT_SCALE,
    SCALES,
    FloorGrowth,
    Refusal,
    Scale,
    judge_floor,
)

from .courses import ramp

# --- the scales ----------------------------------------------------------------------------------

LEAK = "a leak"
NAMES = ("42", "80", "130", "180", "180 fast", "300", "360", "limit")
KINDS = dict(zip(NAMES, (*SCALES, LIMIT_SCALE), strict=True))
each_scale = pytest.mark.parametrize("scale", KINDS.values(), ids=KINDS)


def shape_over(scale: Scale, shape, growth_in_least: float = 3.0) -> FloorGrowth | Refusal:
    """What the scale says of a shape from 0 to 1 over its window, so many times as fast as it must
    be."""
    course = shape(np.linspace(0.0, 1.0, scale.window_minutes))
    grown = growth_in_least * scale.least_rate * 10.0 * scale.window_minutes / 60.0
    return judge_floor(100.0 + grown * course / np.ptp(course), scale, 10.0)


def verdict(scale: Scale, shape) -> str:
    found = shape_over(scale, shape)
    return LEAK if isinstance(found, FloorGrowth) else found.rule


def stairs(count: int):
    return lambda u: np.floor(u * (count + 0.999)) / count


def blocks_of(*floor: float):
    return lambda u: np.asarray(floor)[np.minimum((u * 12).astype(int), 11)]


def test_windows_are_from_42_minutes_to_six_hours_and_twelve_minutes_near_a_limit():
    windows = [scale.window_minutes for scale in SCALES]
    assert windows == [42, 80, 130, 180, 180, 300, 360]
    assert LIMIT_SCALE.window_minutes == 12


def test_the_longest_windows_find_growth_at_the_threshold_and_shorter_ones_only_faster_growth():
    # 550, 90, 36, 10, 30, 10 and 10 MB/h at the default threshold.
    assert [scale.least_rate for scale in SCALES] == [55, 9, 3.6, 1, 3, 1, 1]
    assert LIMIT_SCALE.least_rate == 1


@each_scale
def test_a_straight_line_is_a_leak_from_the_least_rate_on(scale: Scale):
    rate = 10.0 * scale.least_rate
    growth = judge_floor(ramp(scale.window_minutes, rate * 1.1), scale, 10.0)
    assert growth.rate_mb_per_hour == pytest.approx(rate * 1.1, rel=0.02)
    assert judge_floor(ramp(scale.window_minutes, rate * 0.9), scale, 10.0).rule == "rate"


@each_scale
def test_bytes_and_threshold_may_be_scaled_together(scale: Scale):
    assert judge_floor(ramp(360, 2000) / 100, scale, 0.1) == pytest.approx(
        np.array(judge_floor(ramp(360, 2000), scale, 10.0)) / 100
    )


@each_scale
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_jumps_are_no_leak(scale: Scale, count: int):
    assert verdict(scale, stairs(count)) == "steps"


@each_scale
@pytest.mark.parametrize("rise", [3.0, 4.0])
def test_what_slows_down_like_a_warm_up_is_no_leak(scale: Scale, rise: float):
    assert verdict(scale, lambda u: 1 - np.exp(-rise * u)) == "last quarter"


@each_scale
def test_what_ended_a_quarter_ago_is_no_leak(scale: Scale):
    assert verdict(scale, lambda u: np.minimum(u, 0.75)) in ("last quarter", "new high")


@each_scale
def test_what_began_half_a_window_ago_is_no_leak_yet(scale: Scale):
    assert verdict(scale, lambda u: np.maximum(u, 0.5)) in ("scatter", "halves")


@each_scale
def test_what_began_a_quarter_ago_is_no_leak_yet(scale: Scale):
    assert verdict(scale, lambda u: np.maximum(u, 0.75)) in ("rate", "steps", "halves")


@each_scale
def test_a_wave_that_came_back_is_no_leak(scale: Scale):
    assert verdict(scale, lambda u: np.sin(2 * np.pi * u) + 0.05 * u) in ("growth", "rate")


@each_scale
def test_a_ramp_between_two_plateaus_is_no_leak(scale: Scale):
    assert verdict(scale, lambda u: np.clip(2 * u - 0.5, 0, 1)) in ("last quarter", "new high")


# What tells the scales apart. Short windows take nothing but a line; in long ones the same shape
# would have to be a warm-up, or a ramp, of hours.
@pytest.mark.parametrize(
    ("shape", "verdicts"),
    [
        # Memory that is taken in lumps, six of them.
        (stairs(5), (LEAK, "scatter", "scatter", LEAK, LEAK, LEAK, LEAK, LEAK)),
        # A leak that pauses, and catches up: once for hours, twice for less.
        (
            blocks_of(0, 10, 25, 34, 35, 37, 38, 59, 78, 92, 99, 100),
            (*["scatter"] * 6, LEAK, "scatter"),
        ),
        (
            blocks_of(0, 8, 14, 23, 32, 38, 52, 73, 74, 74, 86, 100),
            (LEAK, "scatter", "scatter", "scatter", LEAK, LEAK, LEAK, "scatter"),
        ),
        # The first 26, 33, 45, 63 and 89 % of a warm-up.
        (lambda u: 1 - np.exp(-0.3 * u), (LEAK,) * 8),
        (lambda u: 1 - np.exp(-0.4 * u), (LEAK, "bend", *[LEAK] * 6)),
        (
            lambda u: 1 - np.exp(-0.6 * u),
            (LEAK, "bend", "bend", "bend", LEAK, LEAK, LEAK, LEAK),
        ),
        (
            lambda u: 1 - np.exp(-u),
            (LEAK, "scatter", "scatter", "bend", LEAK, LEAK, LEAK, "bend"),
        ),
        (
            lambda u: 1 - np.exp(-2.2 * u),
            ("scatter", *["last quarter"] * 4, "scatter", "bend", "last quarter"),
        ),
        # Growth that gets faster, a little and much.
        (lambda u: u**1.2, (LEAK, "bend", "bend", LEAK, LEAK, LEAK, LEAK, LEAK)),
        (
            lambda u: u**1.4,
            (LEAK, "scatter", "scatter", "bend", LEAK, LEAK, LEAK, "bend"),
        ),
        (lambda u: u**2.5, ("scatter",) * 5 + ("halves", "halves", "scatter")),
        # Load from its lowest to its highest.
        (
            lambda u: -np.cos(np.pi * u),
            (LEAK, "scatter", "scatter", "bend", "bend", LEAK, LEAK, "bend"),
        ),
    ],
)
def test_scales_differ_in_what_they_take_for_a_line(shape, verdicts: tuple[str, ...]):
    assert dict(zip(NAMES, verdicts, strict=True)) == {
        name: verdict(scale, shape) for name, scale in KINDS.items()
    }


long_scales = pytest.mark.parametrize("scale", SCALES[-2:], ids=NAMES[5:7])


@long_scales
def test_in_hours_each_half_must_grow_at_two_fifths_of_the_mean(scale: Scale):
    def kinked(slower_half: float):
        return lambda u: slower_half * u + 2 * (1 - slower_half) * np.maximum(0, u - 0.5)

    assert verdict(scale, kinked(0.6)) == LEAK
    assert verdict(scale, kinked(0.3)) == "halves"


@long_scales
def test_in_hours_the_end_must_be_well_above_what_was_reached_before(scale: Scale):
    def wave(height: float):
        return blocks_of(0, 9, 18, 27, 36, 45, 54, 63, height, 82, 91, 100)

    assert verdict(scale, wave(94)) == LEAK
    assert verdict(scale, wave(96)) == "new high"


def test_in_three_hours_the_end_must_be_a_little_above_what_was_reached_before():
    assert verdict(SCALES[3], blocks_of(*range(8), 10.9, 9, 10, 11)) == "new high"


def test_over_six_hours_memory_may_bend_most():
    assert verdict(SCALES[-1], lambda u: 1 - np.exp(-1.75 * u)) == LEAK


def test_a_growth_is_not_changed_by_a_constant():
    values = ramp(360, 60)
    moved = judge_floor(values + 4096, SCALES[3], 10.0)
    still = judge_floor(values, SCALES[3], 10.0)
    assert moved[:4] == pytest.approx(still[:4])
    assert moved.floor_mb == pytest.approx(still.floor_mb + 4096)


def test_a_scale_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCALES[0].bend = math.inf
