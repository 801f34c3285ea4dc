"""What a process learns of itself."""

from __future__ import annotations

import numpy as np
import pytest

from memguard_native.memory.floor import FloorGrowth
from memguard_native.memory.learning import Learning, StartUp, find_start_up
from memguard_native.memory.minutes import MinuteSeries
from memguard_native.memory.sample import MemorySample

MB = 2**20
LEAK = FloorGrowth(24.0, 20.0, 28.0, 66.0, 160.0)


def series_of(private_mb, minutes):
    series = MinuteSeries()
    for minute in range(minutes):
        amount = round(private_mb(minute) * MB)
        series.add(MemorySample(monotonic_ns=round(minute * 60e9), wall_ns=0, anon_bytes=amount))
    return series


def learn(private_mb, minutes, **verdict):
    return Learning(10.0).step(series_of(private_mb, minutes), **verdict)


def test_nothing_is_left_before_there_is_a_verdict():
    assert learn(lambda _: 100.0, 60, state="learning") is None
    assert Learning(10.0).step(MinuteSeries(), state="steady") is None


def test_a_steady_process_leaves_its_baseline():
    found = learn(lambda _: 100.0, 200, state="steady", requests=500)
    assert (found.state, found.cause, found.rate_mb_per_hour) == ("steady", "unknown", None)
    assert (found.baseline_mb, found.retained_mb) == (100.0, 100.0)
    assert (found.warm_up_minutes, found.requests) == (0, 500)
    assert found.mb_per_load is None


def test_a_leaking_process_leaves_its_rate_and_how_far_it_grew():
    found = learn(
        lambda minute: 100 + 0.4 * minute,
        181,
        state="alert",
        cause="native-heap",
        growth=LEAK,
        window_minutes=180,
        per_load_mb=1.5,
    )
    assert (found.rate_mb_per_hour, found.cause, found.mb_per_load) == (24.0, "native-heap", 1.5)
    assert found.baseline_mb == pytest.approx(100.0, abs=0.5)
    assert found.retained_mb == pytest.approx(100 + 0.4 * 166, abs=0.5)
    assert found.mb_per_1000_requests is None, "nobody counted requests"


def test_requests_of_the_alerts_window_share_its_growth():
    learning, found = Learning(10.0), None
    series = MinuteSeries()
    for minute in range(200):
        series.add(MemorySample(monotonic_ns=round(minute * 60e9), wall_ns=0, anon_bytes=100 * MB))
        found = learning.step(
            series, state="alert", growth=LEAK, window_minutes=120, requests=100 * minute
        )
        if minute < 120:
            assert found.mb_per_1000_requests is None, "not counted for a whole window yet"
    assert found.mb_per_1000_requests == pytest.approx(48.0 / 12)  # 48 MB in 12,000 requests


def test_start_up_is_over_when_memory_grows_hardly_faster_than_later():
    def start_up(minute):
        return 50 + 10 * min(minute, 12) + 0.4 * minute

    found = learn(start_up, 181, state="alert", growth=LEAK, window_minutes=120)
    assert 10 <= found.warm_up_minutes <= 12
    assert found.baseline_mb == pytest.approx(start_up(found.warm_up_minutes), abs=0.1)


def test_the_start_is_remembered_when_it_is_out_of_view():
    learning = Learning(10.0)
    found = learning.step(series_of(lambda _: 100.0, 300), state="steady")
    later = learning.step(series_of(lambda _: 300.0, 900), state="steady")
    assert (found.baseline_mb, later.baseline_mb) == (100.0, 100.0)
    assert later.retained_mb == 300.0


def test_what_was_never_seen_of_the_start_is_not_known():
    found = learn(lambda _: 100.0, 900, state="steady")
    assert (found.baseline_mb, found.warm_up_minutes) == (None, None)


@pytest.mark.parametrize(
    ("values", "rate", "found"),
    [
        (np.full(60, 80.0), 10.0, StartUp(0, 80.0)),
        (np.arange(60.0), 60.0, StartUp(0, 0.0)),
        (np.arange(60.0) * 10, 60.0, None),
        (np.full(60, np.nan), 10.0, None),
        (np.full(10, 80.0), 10.0, None),
        # A peak that is given back is no memory that was taken.
        (np.concatenate([np.full(5, 300.0), np.full(60, 80.0)]), 10.0, StartUp(0, 80.0)),
    ],
)
def test_start_up_is_what_stays_of_it(values, rate, found):
    assert find_start_up(values, rate) == found


def test_minutes_without_a_sample_do_not_end_start_up():
    values = 50 + 10 * np.minimum(np.arange(60.0), 12)
    values[3:9] = np.nan
    assert find_start_up(values, 10.0).minutes in (11, 12)


def test_after_a_trim_the_start_is_remembered_and_requests_are_counted_from_there():
    series, learning = series_of(lambda minute: 100.0 + 0.4 * minute, 200), Learning(10.0)
    before = learning.step(series, state="alert", growth=LEAK, window_minutes=60, requests=1000)
    series.restart_trimmed()
    for minute in range(61):
        series.add(MemorySample(round(minute * 60e9), 0, anon_bytes=150 * MB))
        found = learning.step(
            series, state="alert", growth=LEAK, window_minutes=60, requests=1000 + 10 * minute
        )
    assert found.baseline_mb == before.baseline_mb == 100.0
    assert found.mb_per_1000_requests == pytest.approx(24.0 / 600 * 1000)
