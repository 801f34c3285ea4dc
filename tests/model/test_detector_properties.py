"""What holds of every course of memory of a kind, whatever its numbers.

Noise is within bounds: it is drawn for each minute by itself, as requests that run at the instant
of the sample do, or is a peak in every tenth minute. Noise that wanders for hours can have any
shape, and nothing holds of it.
"""

from __future__ import annotations

from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from memguard_native.memory.detector import Detector, Leak
from memguard_native.memory.floor import LIMIT_SCALE, SCALES, FloorGrowth, Scale, judge_floor

from ..unit.memory.courses import Found, detector, first_leak, ramp, samples

THRESHOLD = 10.0
WARM_UP = 5
LONGEST_WINDOW = max(scale.window_minutes for scale in SCALES)
# Slower than that only scales believe which are longer than an hour.
FAST_MB_PER_HOUR = SCALES[0].least_rate * THRESHOLD

few = settings(max_examples=40, deadline=None)
many = settings(max_examples=200, deadline=None)

scales = st.sampled_from([*SCALES, LIMIT_SCALE])
seeds = st.integers(0, 2**32 - 1)
sizes_mb = st.floats(0.0, 8.0).map(lambda power: 2.0**power)
heights_mb = st.floats(0.0, 11.5).map(lambda power: 2.0**power)
minutes = np.arange(420.0)


@st.composite
def noises(draw: st.DrawFn) -> np.ndarray:
    """From 0 to at most 256 MB, for every minute by itself."""
    random = np.random.default_rng(draw(seeds))
    noise = random.uniform(0, draw(sizes_mb), len(minutes))
    kind = draw(st.sampled_from(["none", "always", "peaks"]))
    if kind == "peaks":
        noise[random.random(len(minutes)) > 0.1] = 0
    return np.zeros_like(noise) if kind == "none" else noise


def assert_no_leak(course: np.ndarray, **how) -> None:
    assert first_leak(100.0 + course, **how) is None


# --- healthy memory never alerts -----------------------------------------------------------------


@few
@given(noises())
def test_constant_memory_never_alerts(noise: np.ndarray):
    assert_no_leak(noise)


@few
@given(noises(), heights_mb, st.integers(1, 419))
def test_a_single_jump_never_alerts(noise: np.ndarray, height: float, at: int):
    assert_no_leak(noise + height * (minutes >= at))


@few
@given(noises())
def test_memory_that_never_grows_never_alerts(falls: np.ndarray):
    assert_no_leak(200_000 - np.cumsum(falls))


@few
@given(noises(), st.floats(2, 60), st.floats(0, 60), st.floats(0.0, 0.95))
@example(np.zeros(420), 60.0, 0.0, 0.95)
def test_a_sawtooth_of_up_to_an_hour_never_alerts(
    noise: np.ndarray, period: float, phase: float, share: float
):
    # One that takes longer than the first window, and grows as fast as that asks for, cannot be
    # told from a leak before it ends: see the next test.
    height = share * FAST_MB_PER_HOUR * period / 60
    assert_no_leak(noise + (minutes + phase) % period / period * height)


@few
@given(noises(), st.floats(2, 60), st.floats(0, 60), heights_mb)
@example(np.zeros(420), 60.0, 0.0, 3000.0)
@example(np.zeros(420), 9.98, 7.38, 1362.0)
def test_a_sawtooth_of_any_height_never_alerts_after_an_hour_of_warm_up(
    noise: np.ndarray, period: float, phase: float, height: float
):
    course = noise + (minutes + phase) % period / period * height
    assert_no_leak(course, settings={"warm_up_minutes": 60})


def plateau(begin: float, end: float) -> np.ndarray:
    """From 0 to 1 between these minutes."""
    return np.clip((minutes - begin) / max(end - begin, 1e-9), 0, 1)


@few
@given(noises(), st.floats(0, 60), st.floats(0, 60), st.floats(0.0, 0.95))
@example(np.zeros(420), 0.0, 60.0, 0.95)
def test_a_plateau_within_the_hour_never_alerts(
    noise: np.ndarray, one: float, other: float, share: float
):
    begin, end = sorted((one, other))
    height = share * FAST_MB_PER_HOUR * (end - begin) / 60
    assert_no_leak(noise + height * plateau(begin, end))


@few
@given(noises(), st.floats(0, 35), st.floats(0, 25), heights_mb)
@example(np.zeros(420), 20.0, 25.0, 3000.0)
def test_a_plateau_of_any_height_that_takes_25_minutes_never_alerts(
    noise: np.ndarray, begin: float, duration: float, height: float
):
    assert_no_leak(noise + height * plateau(begin, begin + duration))


@few
@given(noises(), st.floats(0, 60), st.floats(0, 60), heights_mb)
@example(np.zeros(420), 0.0, 60.0, 3000.0)
def test_a_plateau_of_any_height_within_the_hour_never_alerts_after_an_hour_of_warm_up(
    noise: np.ndarray, one: float, other: float, height: float
):
    course = noise + height * plateau(*sorted((one, other)))
    assert_no_leak(course, settings={"warm_up_minutes": 60})


@few
@given(noises(), st.floats(0.1, 20), heights_mb)
@example(np.zeros(420), 20.0, 3000.0)
def test_an_exponential_warm_up_within_the_hour_never_alerts(
    noise: np.ndarray, tau: float, height: float
):
    # 95 % of it in three times tau, an hour at most.
    assert_no_leak(noise + height * (1 - np.exp(-minutes / tau)))


# --- a leak always alerts ------------------------------------------------------------------------


def first_leak_of_ramp(thresholds: float, noise: float, seed: int, warm_up: int) -> Found | None:
    """`noise`: as a part of what leaks in an hour."""
    rate = thresholds * THRESHOLD
    duration = warm_up + LONGEST_WINDOW + 10
    jitter = np.random.default_rng(seed).uniform(0, noise * rate, duration)
    return first_leak(ramp(duration, rate) + jitter, settings={"warm_up_minutes": warm_up})


@few
@given(st.floats(1.2, 200.0), st.floats(0.0, 1.0), seeds, st.sampled_from([0, WARM_UP, 60]))
@example(1.2, 1.0, 0, WARM_UP)
def test_a_steady_ramp_always_alerts(thresholds: float, noise: float, seed: int, warm_up: int):
    # With noise up to what leaks in an hour; tried without a miss up to three times that.
    assert first_leak_of_ramp(thresholds, noise, seed, warm_up) is not None


@few
@given(st.floats(1.2, 200.0), st.floats(0.0, 0.1), seeds)
def test_the_rate_of_a_steady_ramp_is_told_within_a_fifth(
    thresholds: float, noise: float, seed: int
):
    # With noise up to a tenth of what leaks in an hour: a short window knows it no better.
    leak = first_leak_of_ramp(thresholds, noise, seed, WARM_UP).leak
    assert leak.growth.rate_mb_per_hour == pytest.approx(thresholds * THRESHOLD, rel=0.2)


@few
@given(st.floats(1.2, 200.0), st.integers(0, 180))
def test_a_ramp_without_noise_alerts_within_three_hours_and_a_quarter(
    thresholds: float, onset: int
):
    rate = thresholds * THRESHOLD
    course = 100 + np.maximum(0, minutes - onset) * rate / 60
    assert first_leak(course).sample <= max(onset, WARM_UP) + 195


# --- what makes no difference --------------------------------------------------------------------


class Course(NamedTuple):
    """Any kind of memory, in whole 4 KiB pages: sums of these are exact."""

    private_mb: np.ndarray
    is_leak: bool


@st.composite
def courses(draw: st.DrawFn) -> Course:
    random = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["leak", "leak", "constant", "warm-up", "jump", "sawtooth"]))
    size = draw(heights_mb)
    rate = draw(st.floats(1.2, 100.0)) * THRESHOLD
    course = {
        "leak": minutes * rate / 60,
        "constant": 0 * minutes,
        "warm-up": size * (1 - np.exp(-minutes / draw(st.floats(1, 20)))),
        "jump": size * (minutes >= draw(st.integers(1, 419))),
        "sawtooth": minutes % draw(st.integers(2, 60)) / 60 * min(size, 0.9 * FAST_MB_PER_HOUR),
    }[kind]
    noise = draw(st.floats(0, 1)) * (rate if kind == "leak" else draw(sizes_mb))
    course = 100 + course + random.uniform(0, noise, len(minutes))
    return Course(np.rint(course * 256) / 256, kind == "leak")


@many
@given(courses(), scales, st.integers(-8, 8))
def test_bytes_and_threshold_scaled_together_scale_the_rate_and_keep_the_verdict(
    course: Course, scale: Scale, power: int
):
    factor = 2.0**power
    found = judge_floor(course.private_mb, scale, THRESHOLD)
    scaled = judge_floor(course.private_mb * factor, scale, THRESHOLD * factor)
    if isinstance(found, FloorGrowth):
        assert scaled == tuple(value * factor for value in found)
    else:
        assert scaled.rule == found.rule


@many
@given(courses(), scales, st.integers(0, 2**20))
def test_a_constant_makes_no_difference(course: Course, scale: Scale, constant: int):
    found = judge_floor(course.private_mb, scale, THRESHOLD)
    moved = judge_floor(course.private_mb + constant, scale, THRESHOLD)
    if isinstance(found, FloorGrowth):
        assert moved[:4] == pytest.approx(found[:4], rel=1e-6)
        assert moved.floor_mb == found.floor_mb + constant
    else:
        assert moved.rule == found.rule


@many
@given(scales, st.floats(1.2, 3.0), st.floats(0, 0.05), seeds)
def test_the_true_rate_is_between_the_low_and_the_high_one(
    scale: Scale, least_rates: float, noise: float, seed: int
):
    rate = least_rates * scale.least_rate * THRESHOLD
    window = scale.window_minutes
    jitter = np.random.default_rng(seed).uniform(0, noise * rate * window / 60, window)
    found = judge_floor(ramp(window, rate) + jitter, scale, THRESHOLD)
    assert isinstance(found, FloorGrowth)
    little = 1e-9 * rate
    assert found.rate_low_mb_per_hour - little <= rate <= found.rate_high_mb_per_hour + little
    assert found.rate_low_mb_per_hour <= found.rate_mb_per_hour <= found.rate_high_mb_per_hour


@few
@given(courses(), seeds, st.sampled_from(["even", "bursts", "few values", "wave"]))
def test_a_load_that_has_nothing_to_do_with_memory_makes_no_difference(
    course: Course, seed: int, kind: str
):
    random = np.random.default_rng(seed)
    load = {
        "even": random.uniform(0, 100, len(minutes)),
        "bursts": np.where(random.random(len(minutes)) < 0.1, 100.0, 0.0),
        "few values": random.integers(0, 5, len(minutes)).astype(float),
        "wave": 50 + 50 * np.sin(minutes / 30),
    }[kind]
    found = first_leak(course.private_mb, load=random.permutation(load))
    assert (found is not None) == course.is_leak


@few
@given(courses(), st.integers(50, 400))
def test_a_verdict_knows_nothing_of_what_comes_after_it(course: Course, cut: int):
    def told(private_mb: np.ndarray) -> list[tuple[Leak | None, float | None]]:
        found: Detector = detector()
        verdicts = []
        for each in samples(private_mb):
            found.add(each)
            verdicts.append((found.leak, found.trend_mb_per_hour))
        return verdicts

    assert told(course.private_mb[:cut]) == told(course.private_mb)[:cut]


@few
@given(st.floats(1.2, 100.0), st.integers(0, 120), st.booleans())
def test_twice_as_many_samples_find_the_same(thresholds: float, onset: int, levels_off: bool):
    rate = thresholds * THRESHOLD
    halves = np.arange(840) / 2
    grown = np.maximum(0, halves - onset) * rate / 60
    if levels_off:
        grown = grown[-1] * (1 - np.exp(-grown / max(grown[-1], 1) * 21))
    course = 100 + grown
    each_minute = first_leak(course[::2])
    each_half = first_leak(course, apart=0.5, settings={"interval": 30.0})
    assert (each_half is None) == (each_minute is None)
    if each_half is not None:
        assert each_half.minute == pytest.approx(each_minute.minute, abs=2)
        assert each_half.leak.window_minutes == each_minute.leak.window_minutes
        rates = [found.leak.growth.rate_mb_per_hour for found in (each_half, each_minute)]
        assert rates[0] == pytest.approx(rates[1], rel=0.05)


@few
@given(courses(), st.floats(0.25, 300.0))
def test_minutes_may_be_of_any_length(course: Course, minute_s: float):
    how = {"minute_s": minute_s, "interval": minute_s}
    usual, other = (
        first_leak(course.private_mb),
        first_leak(course.private_mb, apart=minute_s / 60, settings=how),
    )
    assert (other is None) == (usual is None)
    if other is not None:
        assert other == usual
