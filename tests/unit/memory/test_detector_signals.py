"""Detector: signals and load, intervals and gaps, the threshold, suspicion, and what is told."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from memguard_native.memory.detector import SIGNALS, Detector
from memguard_native.memory.floor import LIMIT_SCALE, SCALES, FloorGrowth, Refusal

from .courses import detector, fed, first_leak, ramp, sample, samples

# Rates that only this scale and slower ones believe in, at the default threshold.
FAST_RATE, SHORT_RATE, SLOW_RATE = 700.0, 150.0, 20.0


def examined(found: Detector) -> dict[tuple[int, str], FloorGrowth | Refusal]:
    return {
        (SCALES.index(scale) if scale in SCALES else -1, signal): verdict
        for scale, signal, verdict in found.examine()
    }


def windows_of(**settings) -> list[int]:
    found = fed(detector(**settings), [sample(0, 100)])
    return [scale.window_minutes for scale, _, _ in found.examine() if scale is not LIMIT_SCALE]


def random(minutes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, minutes)


# --- signals -------------------------------------------------------------------------------------


def test_live_memory_is_judged_where_malloc_tells_what_is_free():
    # A leak into the holes of the heap: private memory does not grow at all.
    found = first_leak(np.full(200, 900.0), free_mb=800 - ramp(200, SHORT_RATE, start_mb=0))
    assert (found.leak.signal, found.leak.window_minutes) == ("live", 80)


def test_free_memory_of_malloc_that_grows_is_a_leak_of_private_memory():
    private = ramp(200, 30)
    found = first_leak(private, free_mb=private - 60)
    assert (found.leak.signal, found.leak.window_minutes) == ("private", 180)
    assert found.sample == 180 + 5 + 4 - 1
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(30)


def test_private_memory_is_judged_on_one_long_scale_only():
    found = fed(detector(), samples([100.0], free_mb=10))
    judged_private = [scale for scale, signal, _ in found.examine() if signal == "private"]
    assert [scale.window_minutes for scale in judged_private] == [180]
    assert judged_private[0].least_rate == 1


def test_private_memory_is_not_judged_by_itself_where_malloc_tells_nothing():
    assert {signal for _, signal in examined(fed(detector(), [sample(0, 100)]))} == {"live"}


@pytest.mark.parametrize(("in_jumps", "is_fragmentation"), [(0.3, True), (0.7, False)])
def test_half_of_the_growth_of_private_memory_must_be_free_memory(
    in_jumps: float, is_fragmentation: bool
):
    # Live memory grows in two jumps, which is no leak, and what malloc keeps free fills the gaps.
    private = ramp(190, 30)
    jumps = np.where(np.arange(190) > 60, 1, 0) + np.where(np.arange(190) > 130, 1, 0)
    free = private - 50 - in_jumps * 45 * jumps
    verdict = examined(fed(detector(), samples(private, free_mb=free)))[3, "private"]
    if is_fragmentation:
        assert isinstance(verdict, FloorGrowth)
    else:
        assert verdict.rule == "growth of what malloc keeps free"
        assert verdict.limit == pytest.approx(15)
        assert verdict.found < 15


def test_private_memory_that_is_no_leak_by_its_shape_is_no_fragmentation():
    private = 100 + 80 * (np.arange(190) > 100)
    verdict = examined(fed(detector(), samples(private, free_mb=private - 60)))[3, "private"]
    assert verdict.rule == "steps"


def test_private_memory_that_grows_with_the_load_is_no_fragmentation():
    # 17 MB/h, of which 8 are a load that grows: what is left is below the threshold.
    private = ramp(190, 17)
    load = ramp(190, 8, start_mb=10) + 10 * random(190)
    columns = {"free_mb": private - 50 - load}
    unreported = fed(detector(), samples(private, **columns))
    assert isinstance(examined(unreported)[3, "private"], FloorGrowth)
    reported = fed(detector(), samples(private, load=load, **columns))
    assert reported.per_load_mb == pytest.approx(1)
    verdict = examined(reported)[3, "private"]
    assert verdict == ("rate", pytest.approx(9, abs=0.9), pytest.approx(10))


def test_fragmentation_beside_a_load_is_found_without_the_load():
    load = 20 * random(190)
    private = ramp(190, 30) + load
    found = fed(detector(), samples(private, free_mb=private - 60 - load, load=load))
    growth = examined(found)[3, "private"]
    assert growth.rate_mb_per_hour == pytest.approx(30, rel=0.05)


def test_when_malloc_begins_to_tell_fragmentation_is_not_believed_without_seeing_it_grow():
    # Private memory grew all the time, but of which part it was is known for five minutes only.
    free = np.r_[np.full(185, np.nan), np.full(5, 20.0)]
    verdict = examined(fed(detector(), samples(ramp(190, 30), free_mb=free)))[3, "private"]
    assert verdict.rule == "growth of what malloc keeps free"
    assert math.isnan(verdict.found)


def test_when_malloc_begins_to_tell_live_memory_waits_for_a_full_window():
    free = np.r_[np.full(100, np.nan), np.full(60, 20.0)]
    found = examined(fed(detector(), samples(ramp(160, FAST_RATE), free_mb=free)))
    assert isinstance(found[0, "live"], FloorGrowth)
    assert found[1, "live"].rule == "blocks without a sample"


def test_when_malloc_ceases_to_tell_a_leak_is_still_seen():
    free = np.r_[np.full(100, 20.0), np.full(100, np.nan)]
    found = fed(detector(), samples(ramp(200, SHORT_RATE), free_mb=free))
    assert found.leak.signal == "live"
    assert isinstance(examined(found)[1, "live"], FloorGrowth)


def test_memory_of_the_gpu_is_a_signal_of_its_own():
    found = first_leak(np.full(60, 100.0), gpu_mb=ramp(60, FAST_RATE))
    assert (found.leak.signal, found.leak.window_minutes, found.sample) == ("gpu", 42, 48)


def test_memory_of_the_gpu_does_not_reach_the_limit_of_the_host():
    found = first_leak(np.full(60, 100.0), gpu_mb=ramp(60, FAST_RATE), room_mb=1.0)
    assert found.sample == 48
    assert not found.leak.near_limit


def test_memory_of_the_gpu_is_not_judged_while_it_is_not_known():
    gpu = np.r_[ramp(50, FAST_RATE), np.nan]
    assert {signal for _, signal in examined(fed(detector(), samples([1] * 51, gpu_mb=gpu)))} == {
        "live"
    }


def test_live_memory_is_named_before_private_memory_and_the_gpu():
    private = ramp(200, FAST_RATE)
    found = first_leak(private, free_mb=10, gpu_mb=private)
    assert found.leak.signal == "live"
    assert {
        signal for _, signal in examined(fed(detector(), samples([1], free_mb=0, gpu_mb=1)))
    } == (set(SIGNALS))


# --- load ----------------------------------------------------------------------------------------


def test_a_wave_of_load_that_is_reported_is_no_leak():
    load = np.linspace(0, 200, 200) + 20 * random(200)
    memory = 100 + load
    assert first_leak(memory) is not None
    assert first_leak(memory, load=load) is None


def test_a_leak_under_load_is_found_sooner_when_the_load_is_reported():
    load = 100 * random(200)
    memory = ramp(200, SHORT_RATE) + load
    reported, unreported = first_leak(memory, load=load), first_leak(memory)
    assert reported.sample == pytest.approx(88, abs=6)
    assert unreported.sample > reported.sample + 20


def test_what_a_unit_of_load_takes_is_told():
    load = 100 * random(60)
    found = fed(detector(), samples(100 + 0.25 * load, load=load))
    assert found.per_load_mb == pytest.approx(0.25)


def test_constant_load_changes_nothing():
    assert first_leak(ramp(100, SHORT_RATE), load=50.0) == first_leak(ramp(100, SHORT_RATE))


def test_a_leak_is_not_put_down_to_a_load_that_grows_like_it():
    memory = ramp(100, SHORT_RATE)
    assert first_leak(memory, load=memory) == first_leak(memory)


def test_while_the_load_is_not_known_nothing_is_put_down_to_it():
    load = 100 * random(60)
    course = samples(100 + load, load=np.r_[load[:-1], np.nan])
    assert fed(detector(), course).per_load_mb == 0


# --- intervals, and minutes that are missing -----------------------------------------------------


def test_scales_of_which_blocks_have_fewer_than_three_samples_are_off():
    assert windows_of(interval=5.0) == [42, 80, 130, 180, 180, 300, 360]
    assert windows_of(interval=60.0) == [42, 80, 130, 180, 180, 300, 360]
    assert windows_of(interval=120.0) == [80, 130, 180, 180, 300, 360]
    assert windows_of(interval=300.0) == [180, 180, 300, 360]
    assert windows_of(interval=600.0) == [360]
    assert windows_of(interval=3600.0) == []


def test_a_tenth_fewer_than_three_are_enough():
    # A block of 42 minutes has 3.5: 2.73 samples every 77 s, 2.69 every 78 s.
    assert 42 in windows_of(interval=77.0)
    assert 42 not in windows_of(interval=78.0)


@pytest.mark.parametrize("minute_s", [60.0, 0.25])
def test_a_minute_may_stand_for_less_time(minute_s: float):
    found = detector(interval=minute_s, minute_s=minute_s)
    apart = minute_s / 60
    fed(found, samples(ramp(48, FAST_RATE), apart=apart))
    assert found.leak is None
    fed(found, samples(ramp(1, FAST_RATE, start_mb=660), first=48 * apart))
    assert found.leak.window_minutes == 42
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(FAST_RATE, rel=0.02)


def test_samples_every_five_seconds_find_the_same():
    values = 100 + np.arange(60 * 12) * FAST_RATE / 720
    found = first_leak(values, apart=1 / 12, settings={"interval": 5.0})
    assert found.sample == pytest.approx(48 * 12, abs=12)
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(FAST_RATE, rel=0.02)


@pytest.mark.parametrize(
    ("interval", "rate", "window"), [(120.0, SHORT_RATE, 80), (300.0, SLOW_RATE, 180)]
)
def test_rare_samples_find_a_leak_after_five_verdicts(interval: float, rate: float, window: int):
    apart = interval / 60
    values = 100 + np.arange(100) * apart * rate / 60
    found = first_leak(values, apart=apart, settings={"interval": interval})
    first_judged = math.ceil((window + 5 - 1) / apart)
    assert found.sample == first_judged + 4
    assert found.leak.window_minutes == window
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(rate, rel=0.05)


def test_samples_that_are_lost_now_and_then_do_not_matter():
    values = ramp(200, SHORT_RATE)
    values[random(200) < 0.3] = np.nan
    found = first_leak(values)
    assert found.minute == pytest.approx(90, abs=6)
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(SHORT_RATE, rel=0.05)


def test_a_scale_waits_until_every_block_has_samples_again():
    values = ramp(200, SHORT_RATE)
    values[60:75] = np.nan
    found = examined(fed(detector(), samples(values[:120])))
    assert found[1, "live"].rule == "blocks without a sample"
    assert isinstance(examined(fed(detector(), samples(values)))[1, "live"], FloorGrowth)


def test_after_a_suspension_a_leak_must_be_proved_anew():
    found = fed(detector(), samples(ramp(100, SHORT_RATE)))
    assert found.leak is not None
    fed(found, samples(ramp(80, SHORT_RATE, start_mb=5000), first=10_000))
    assert found.leak is None
    fed(found, samples(ramp(10, SHORT_RATE, start_mb=5200), first=10_080))
    assert found.leak is not None


def test_memory_that_was_lost_in_a_suspension_is_no_leak():
    found = fed(detector(), samples(np.full(100, 100.0)))
    fed(found, samples(np.full(400, 9000.0), first=500))
    assert found.leak is None


def test_while_the_clock_is_behind_nothing_is_judged():
    found = fed(detector(), samples(ramp(100, SHORT_RATE)))
    before = found.leak
    assert not any(found.add(each) for each in samples(np.full(99, 1.0)))
    assert found.leak is before


# --- the threshold -------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1.0, 10.0, 1000.0])
def test_growth_a_little_above_the_threshold_is_a_leak_and_a_little_below_it_is_none(
    threshold: float,
):
    settings = {"threshold_mb_per_hour": threshold}
    assert first_leak(ramp(380, threshold * 1.05), settings=settings).sample == 188
    assert first_leak(ramp(380, threshold * 0.95), settings=settings) is None


# --- suspicion -----------------------------------------------------------------------------------


def test_a_trend_of_an_hour_above_the_threshold_is_suspicious():
    found = fed(detector(), samples(ramp(59, 12)))
    assert found.trend_mb_per_hour is None
    fed(found, [sample(59, 100 + 59 / 5)])
    assert found.trend_mb_per_hour == pytest.approx(12)
    assert found.leak is None


def test_a_trend_below_the_threshold_is_not():
    assert fed(detector(), samples(ramp(100, 8))).trend_mb_per_hour is None
    assert fed(detector(threshold_mb_per_hour=7.0), samples(ramp(100, 8))).trend_mb_per_hour == (
        pytest.approx(8)
    )


@pytest.mark.parametrize(("fallen", "is_suspicious"), [(15, True), (16, False)])
def test_a_slope_that_is_by_chance_once_in_a_hundred_is_not(fallen: int, is_suspicious: bool):
    # An hour that rises, of which the lowest minutes come last: of 1770 pairs, 2 * fallen *
    # (60 - fallen) fewer rise than fall, which is z = 2.67 and z = 2.30.
    values = np.roll(ramp(60, 60), -fallen)
    found = fed(detector(threshold_mb_per_hour=0.01), samples(values))
    assert (found.trend_mb_per_hour is not None) == is_suspicious


def test_a_trend_is_of_live_memory():
    private = ramp(60, 100)
    assert fed(detector(), samples(private, free_mb=private - 50)).trend_mb_per_hour is None


def test_a_trend_is_over_when_it_was_not_seen_for_30_minutes():
    values = np.r_[ramp(60, 12), np.full(200, 100.0)]
    found = detector()
    trends = []
    for each in samples(values):
        found.add(each)
        trends.append(found.trend_mb_per_hour)
    last_rise = max(i for i, (one, next_one) in enumerate(pairwise(trends)) if one != next_one)
    assert trends[last_rise] is not None
    assert trends[last_rise + 1] is None
    assert trends[-1] is None


def test_a_trend_is_measured_anew_while_it_is_seen():
    found = fed(detector(), samples(ramp(60, 12)))
    fed(found, samples(ramp(60, 36, start_mb=112), first=60))
    assert found.trend_mb_per_hour == pytest.approx(36, rel=0.05)


# --- explaining ----------------------------------------------------------------------------------


def test_before_the_first_sample_there_is_nothing_to_examine():
    assert list(detector().examine()) == []


def test_every_scale_says_of_every_signal_what_it_finds():
    found = fed(detector(), samples(ramp(100, SHORT_RATE), free_mb=10, gpu_mb=5))
    verdicts = examined(found)
    assert set(verdicts) == {(i, s) for i in range(-1, 7) for s in ("live", "gpu")} | {
        (3, "private")
    }
    assert verdicts[0, "live"] == ("rate", pytest.approx(SHORT_RATE), pytest.approx(550))
    assert verdicts[1, "live"].rate_mb_per_hour == pytest.approx(SHORT_RATE)
    assert verdicts[2, "live"].rule == "minutes so far"
    assert verdicts[-1, "gpu"].rule == "growth"


def test_examining_changes_nothing():
    found = fed(detector(), samples(ramp(88, SHORT_RATE)))
    first = examined(found)
    assert examined(found) == first
    assert found.leak is None
