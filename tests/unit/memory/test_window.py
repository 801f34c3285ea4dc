"""The window rule, repair by repair of the original's formula (newest - oldest) * 60 / 12."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.memory.alert import MemoryState
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.window import WindowRule, growth_between

MB = 2**20
MINUTE_NS = 60 * 10**9


def sample(minute: float, megabytes: float, **fields) -> MemorySample:
    return MemorySample(round(minute * MINUTE_NS), 0, anon_bytes=round(megabytes * MB), **fields)


def rule(interval: float = 60.0, window: int = 12, threshold: float = 10.0) -> WindowRule:
    return WindowRule(interval=interval, window=window, threshold_mb_per_hour=threshold)


def fed(*samples: MemorySample, **settings) -> WindowRule:
    fresh = rule(**settings)
    for each in samples:
        fresh.add(each)
    return fresh


def ramp(mb_per_hour: float, minutes: int = 12) -> list[MemorySample]:
    return [sample(minute, 100 + mb_per_hour * minute / 60) for minute in range(minutes)]


# --- the rate ------------------------------------------------------------------------------------


def test_twelve_samples_at_60_s_span_eleven_minutes():
    growth = fed(*ramp(60)).growth
    assert growth.span == 11 * 60
    assert growth.rate_mb_per_hour == pytest.approx(60)


def test_rate_uses_the_time_that_really_passed():
    late = [sample(2 * minute, 100 + minute) for minute in range(12)]
    assert fed(*late).growth.rate_mb_per_hour == pytest.approx(30)


def test_rate_uses_unrounded_bytes():
    # 0.4 MB in 11 minutes is 2.2 MB/h; rounded to whole MB it would be 0, or 5.5.
    growth = fed(*[sample(minute, 100.3 + 0.4 * (minute == 11)) for minute in range(12)]).growth
    assert growth.rate_mb_per_hour == pytest.approx(0.4 / 11 * 60, rel=1e-4)


def test_rate_of_shrinking_memory_is_negative():
    assert fed(*ramp(-30)).growth.rate_mb_per_hour == pytest.approx(-30)


def test_rate_looks_at_the_newest_window_only():
    early_leak = [sample(minute, 10 * minute) for minute in range(12)]
    flat = [sample(minute, 110) for minute in range(12, 24)]
    assert fed(*early_leak, *flat).growth.rate_mb_per_hour == 0


@given(
    sizes=st.lists(st.integers(0, 2**45), min_size=12, max_size=40),
    offset=st.integers(0, 2**45),
)
def test_adding_a_constant_changes_nothing(sizes, offset):
    def rates(extra: int) -> list[object]:
        watched = rule()
        found = []
        for minute, size in enumerate(sizes):
            watched.add(MemorySample(minute * MINUTE_NS, 0, anon_bytes=size + extra))
            found.append((watched.growth, watched.state))
        return found

    assert rates(offset) == rates(0)


@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=40))
def test_memory_that_never_grows_never_alerts(sizes):
    watched = rule()
    for minute, size in enumerate(sorted(sizes, reverse=True)):
        watched.add(MemorySample(minute * MINUTE_NS, 0, anon_bytes=size))
        assert watched.state is not MemoryState.alert


# --- no verdict too early ------------------------------------------------------------------------


def test_no_verdict_before_the_window_is_full():
    learning = fed(*ramp(1000, minutes=11))
    assert learning.state is MemoryState.learning
    assert learning.growth is None


def test_verdict_as_soon_as_the_window_is_full():
    assert fed(*ramp(1000)).state is MemoryState.alert
    assert fed(*ramp(1)).state is MemoryState.steady


def test_no_verdict_before_the_window_spans_enough_time():
    hurried = [sample(minute / 10, 100 + minute) for minute in range(12)]
    watched = fed(*hurried)
    assert watched.state is MemoryState.learning
    assert watched.growth is None


def test_a_window_that_is_a_little_short_is_enough():
    assert fed(*[sample(m * 0.901, 100 + m) for m in range(12)]).growth is not None
    assert fed(*[sample(m * 0.899, 100 + m) for m in range(12)]).growth is None


def test_window_and_interval_are_what_they_were_set_to():
    quick = [sample(second / 60, 100 + second) for second in range(3)]
    assert fed(*quick[:2], interval=1, window=3).state is MemoryState.learning
    assert fed(*quick, interval=1, window=3).state is MemoryState.alert


def test_time_that_stands_still_or_goes_back_gives_no_verdict():
    for times in ([5, 5, 5], [5, 4, 3]):
        watched = fed(*[sample(t, 10 * t) for t in times], window=3)
        assert watched.state is MemoryState.learning


# --- which memory --------------------------------------------------------------------------------


def test_private_memory_is_compared_and_not_the_resident_set():
    growth = fed(*[sample(m, 100, rss_bytes=m * 100 * MB) for m in range(12)]).growth
    assert (growth.signal, growth.rate_mb_per_hour) == ("private", 0)


def test_resident_set_is_compared_where_private_memory_is_unknown():
    growth = fed(*[MemorySample(m * MINUTE_NS, 0, rss_bytes=m * MB) for m in range(12)]).growth
    assert growth.signal == "rss"
    assert growth.rate_mb_per_hour == pytest.approx(60)


def test_both_ends_are_compared_in_the_same_memory():
    oldest = MemorySample(0, 0, rss_bytes=10 * MB)
    newest = MemorySample(60 * MINUTE_NS, 0, rss_bytes=13 * MB, anon_bytes=500 * MB)
    growth = growth_between(oldest, newest)
    assert growth.signal == "rss"
    assert growth.rate_mb_per_hour == pytest.approx(3)


def test_ends_without_a_common_signal_give_no_verdict():
    oldest = MemorySample(0, 0, rss_bytes=10 * MB)
    assert growth_between(oldest, sample(60, 10)) is None


def test_a_sample_that_says_nothing_is_left_out():
    samples = ramp(60)
    watched = fed(*samples[:6], MemorySample(6 * MINUTE_NS, 0, threads=4), *samples[7:])
    assert watched.state is MemoryState.learning
    watched.add(sample(12, 112))
    assert watched.growth.rate_mb_per_hour == pytest.approx(60)
    assert watched.growth.span == 12 * 60


# --- raising and clearing ------------------------------------------------------------------------


def states(rates: list[float]) -> list[str]:
    """The states of a window of three samples, one an hour, that sees these rates in turn."""
    watched = rule(interval=3600, window=3)
    sizes = [100.0, 100.0]
    for rate in rates:
        sizes.append(sizes[-2] + 2 * rate)
    found = []
    for hour, size in enumerate(sizes):
        watched.add(sample(60 * hour, size))
        found.append(str(watched.state))
    return found[2:]


def test_growth_at_the_limit_is_no_alert():
    assert states([10.0]) == ["steady"]
    assert states([10.01]) == ["alert"]


def test_alert_stays_down_to_80_percent_of_the_limit():
    assert states([11, 9, 8.01, 11]) == ["alert"] * 4


def test_alert_clears_below_80_percent_of_the_limit():
    assert states([11, 7.99]) == ["alert", "steady"]


def test_cleared_alert_is_raised_again_above_the_limit_only():
    assert states([11, 7, 9, 11]) == ["alert", "steady", "steady", "alert"]


def test_alert_stays_while_there_is_no_verdict():
    watched = fed(*ramp(1000))
    watched.add(MemorySample(12 * MINUTE_NS, 0))
    assert watched.state is MemoryState.alert
