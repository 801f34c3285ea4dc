"""Detector: which signals and scales are judged when, and how many verdicts make a leak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from memguard_native.memory.detector import Detector, Leak
from memguard_native.memory.floor import LIMIT_SCALE, SCALES, FloorGrowth, Refusal

from .courses import detector, fed, first_leak, ramp, sample, samples

FAST, SHORT = SCALES[0], SCALES[1]
# Rates that only this scale and slower ones believe in, at the default threshold.
FAST_RATE, SHORT_RATE, SLOW_RATE = 700.0, 150.0, 20.0


# --- when it is too early ------------------------------------------------------------------------


@pytest.mark.parametrize("warm_up_minutes", [0, 5, 60])
def test_no_window_may_begin_within_the_warm_up(warm_up_minutes: int):
    # The window is full with its 42nd minute, and two verdicts more are asked for.
    settings = {"warm_up_minutes": warm_up_minutes}
    found = first_leak(ramp(200, FAST_RATE), settings=settings)
    assert found.sample == 42 + warm_up_minutes + 2 - 1
    assert found.leak.window_minutes == 42


def test_it_learns_until_the_shortest_window_is_full():
    found = fed(detector(warm_up_minutes=5), samples([100] * 46))
    assert found.is_learning
    assert not fed(found, samples([100], first=46)).is_learning


def test_it_learns_longer_where_only_longer_windows_have_samples_enough():
    found = fed(detector(warm_up_minutes=5, interval=300.0), samples([100] * 37, apart=5))
    assert found.is_learning
    assert not fed(found, samples([100], first=185)).is_learning


def test_a_warm_up_that_is_longer_than_the_history_ends():
    found = fed(detector(warm_up_minutes=400), samples([100] * 441))
    assert found.is_learning
    assert not fed(found, samples([100], first=441)).is_learning


def test_a_sample_an_hour_is_never_enough():
    found = fed(detector(interval=3600.0), samples(ramp(30, 1e5), apart=60))
    assert found.is_learning
    assert found.leak is None
    assert {scale for scale, _, _ in found.examine()} == {LIMIT_SCALE}


# --- how many verdicts ---------------------------------------------------------------------------


class Scripted(Detector):
    """Finds a growth where its script says so: whatever the samples are."""

    def __init__(self, script: Callable[[int], list]) -> None:
        super().__init__(threshold_mb_per_hour=10.0, warm_up_minutes=0.0)
        self.script = script

    def examine(self):
        yield from self.script(self.series.minute)


def growth_of(rate: float) -> FloorGrowth:
    return FloorGrowth(rate, rate, rate, 1.0, 100.0)


def warmed_up(script: Callable[[int], list]) -> Scripted:
    """All windows are full: the script begins with minute 400."""
    found = Scripted(lambda minute: [])
    fed(found, samples([100.0] * 400))
    found.script = lambda minute: script(minute - 400)
    return found


def judged(
    script: Callable[[int], list], minutes: int, room_mb: float | None = None
) -> list[Leak | None]:
    """What is believed in after each minute of the script."""
    found = warmed_up(script)
    leaks = []
    for minute in range(minutes):
        found.add(sample(400 + minute, 100.0), room_mb=room_mb)
        leaks.append(found.leak)
    return leaks


def votes(scale, pattern: str, signal: str = "live") -> Callable[[int], list]:
    """A growth in the minutes that have a 1."""
    return lambda minute: (
        [(scale, signal, growth_of(30.0))] if pattern[minute : minute + 1] == "1" else []
    )


def believed(scale, pattern: str) -> bool:
    return judged(votes(scale, pattern), len(pattern))[-1] is not None


@pytest.mark.parametrize("pattern", ["11111", "11011011", "10010111", "0000000011111", "1110011"])
def test_five_of_the_newest_eight_verdicts_make_a_leak(pattern: str):
    assert believed(SHORT, pattern)


@pytest.mark.parametrize("pattern", ["1111", "11100001", "110011001", "1010101", "111100001"])
def test_fewer_of_the_newest_eight_verdicts_do_not(pattern: str):
    assert not believed(SHORT, pattern)


@pytest.mark.parametrize("pattern", ["111", "1011", "1101"])
def test_three_of_four_verdicts_are_enough_where_memory_grows_fast(pattern: str):
    assert believed(FAST, pattern)


@pytest.mark.parametrize("pattern", ["11", "10101", "11001"])
def test_fewer_of_four_verdicts_are_not(pattern: str):
    assert not believed(FAST, pattern)


def test_verdicts_of_different_scales_do_not_add_up():
    slow = SCALES[3]
    leaks = judged(
        lambda minute: [(SHORT if minute % 2 else slow, "live", growth_of(30.0))], minutes=8
    )
    assert leaks[-1] is None


def test_verdicts_of_different_signals_do_not_add_up():
    leaks = judged(
        lambda minute: [(SHORT, "live" if minute % 2 else "gpu", growth_of(30.0))], minutes=8
    )
    assert leaks[-1] is None


def test_a_refusal_is_no_vote():
    leaks = judged(lambda minute: [(SHORT, "live", Refusal("rate", 1.0, 10.0))], minutes=10)
    assert leaks[-1] is None


def test_of_several_growths_the_first_one_that_is_believed_in_names_the_rate():
    def script(minute: int) -> list:
        fast = [(FAST, "live", growth_of(900.0))] if minute >= 5 else []
        return [*fast, (SHORT, "live", growth_of(100.0)), (SCALES[3], "live", growth_of(30.0))]

    leaks = judged(script, minutes=8)
    rates = [leak and leak.growth.rate_mb_per_hour for leak in leaks]
    assert rates == [None] * 4 + [100.0] * 3 + [900.0]
    assert leaks[-1].window_minutes == 42


def test_the_growth_is_measured_anew_while_it_is_seen():
    leaks = judged(lambda minute: [(SHORT, "live", growth_of(50.0 + minute))], minutes=7)
    assert [leak.growth.rate_mb_per_hour for leak in leaks[4:]] == [54, 55, 56]


def test_a_second_sample_of_a_minute_is_no_second_verdict():
    found = warmed_up(votes(SHORT, "1" * 9))
    for minute in range(400, 404):
        assert found.add(sample(minute, 100))
        assert not found.add(sample(minute + 0.2, 90))
    assert found.leak is None


def test_a_sample_that_says_nothing_is_not_judged():
    found = warmed_up(votes(SHORT, "1" * 9))
    assert not any(found.add(sample(400 + minute)) for minute in range(9))
    assert found.leak is None


# --- when it is over -----------------------------------------------------------------------------


def test_a_leak_is_over_when_it_was_not_seen_for_30_minutes():
    leaks = judged(votes(SHORT, "11111"), minutes=40)
    assert all(leaks[4:34])
    assert not any(leaks[34:])


def test_a_leak_is_not_over_while_any_scale_sees_growth_now_and_then():
    def script(minute: int) -> list:
        if minute < 5:
            return [(SHORT, "live", growth_of(100.0))]
        return [(SCALES[3], "live", growth_of(30.0))] if minute % 25 == 0 else []

    leaks = judged(script, minutes=130)
    assert all(leaks[4:])
    assert leaks[-1].growth.rate_mb_per_hour == 100


def test_a_leak_is_proved_anew_after_memory_was_given_back():
    found = fed(warmed_up(votes(SHORT, "1" * 30)), samples([100.0] * 10, first=400))
    assert found.leak is not None
    found.forget()
    assert found.leak is None
    fed(found, samples([100.0] * 4, first=410))
    assert found.leak is None
    fed(found, samples([100.0], first=414))
    assert found.leak is not None


def test_a_leak_that_ended_is_over_some_time_later():
    found = fed(detector(), samples(np.r_[ramp(120, FAST_RATE), np.full(60, 1500.0)]))
    assert found.leak is None
    assert found.series.minute == 179


# --- near a limit --------------------------------------------------------------------------------


def test_growth_that_reaches_the_limit_within_twelve_minutes_is_believed_at_once():
    # 60 MB/h: 11 MB are 11 minutes.
    found = first_leak(ramp(60, 60), room_mb=11.0)
    assert found.sample == 12 + 2 - 1
    assert found.leak.near_limit
    assert (found.leak.signal, found.leak.window_minutes) == ("live", 12)
    assert found.leak.growth.rate_mb_per_hour == pytest.approx(60, rel=0.01)


def test_growth_that_reaches_the_limit_later_is_not_believed_at_once():
    assert first_leak(ramp(60, 60), room_mb=13.0) is None
    assert first_leak(ramp(60, 60)) is None


def test_without_room_every_growth_is_near_the_limit():
    assert first_leak(ramp(60, 60), room_mb=-5.0).sample == 13


@pytest.mark.parametrize(
    ("rate", "window"), [(FAST_RATE, 42), (SHORT_RATE, 80), (50.0, 130), (SLOW_RATE, 180)]
)
def test_within_two_windows_of_the_limit_neither_warm_up_nor_hold_is_waited_for(
    rate: float, window: int
):
    room = rate / 60 * 2 * window
    near = first_leak(ramp(window + 30, rate), room_mb=room * 0.95)
    assert near.sample == window + 2 - 1
    assert near.leak.near_limit
    far = first_leak(ramp(window + 30, rate), room_mb=room * 1.05)
    assert far.sample == window + 5 + (2 if window == 42 else 4) - 1
    assert not far.leak.near_limit


def test_the_limit_is_near_by_the_highest_slope_that_is_likely():
    def script(minute: int) -> list:
        return [(SHORT, "live", FloorGrowth(60.0, 30.0, 120.0, 1.0, 100.0))]

    # Two windows of 80 minutes at 120 MB/h are 320 MB.
    assert [leak is not None for leak in judged(script, 5, room_mb=319)] == [False] * 2 + [True] * 3
    assert [leak is not None for leak in judged(script, 5, room_mb=321)] == [False] * 4 + [True]


def test_near_the_limit_three_of_four_verdicts_are_enough():
    near = judged(votes(SHORT, "1011"), 4, room_mb=1.0)
    assert near[3].near_limit
    assert judged(votes(SHORT, "10101"), 5, room_mb=1.0)[-1] is None
    assert judged(votes(LIMIT_SCALE, "1011"), 4, room_mb=1.0)[3].near_limit


def test_the_scale_near_the_limit_counts_nowhere_else():
    assert judged(votes(LIMIT_SCALE, "1" * 9), 9)[-1] is None
    assert judged(votes(LIMIT_SCALE, "1" * 9), 9, room_mb=1e6)[-1] is None


def test_room_is_counted_from_the_peak_of_the_last_hour():
    # Two windows of 42 minutes are 980 MB. Two minutes have taken 600 MB more, which is 330 MB
    # above what is in use when the window is full.
    values = ramp(60, FAST_RATE)
    values[20:22] += 600
    assert not first_leak(ramp(60, FAST_RATE), room_mb=1100.0).leak.near_limit
    found = first_leak(values, room_mb=1100.0)
    assert found.leak.near_limit
    assert found.sample == 43


def test_the_peak_is_that_of_private_memory_within_the_last_hour():
    values = np.full(120, 100.0)
    values[70], values[50] = 130, 400
    found = fed(detector(), samples(values, free_mb=50))
    assert found.peak_above_mb() == 30
    assert fed(found, samples([110.0], first=120)).peak_above_mb() == 20


def test_before_the_first_sample_no_peak_is_above():
    assert detector().peak_above_mb() == 0


def test_minutes_that_are_missing_are_no_peak():
    assert fed(detector(), [sample(0, 120), sample(7, 100)]).peak_above_mb() == 20


def test_before_the_first_sample_nothing_is_below():
    assert detector().floor_below_mb(60) == 0.0
