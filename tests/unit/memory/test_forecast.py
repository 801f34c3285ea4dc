"""When memory reaches its limit: numbers by hand."""

from __future__ import annotations

import math

import pytest

from memguard_native.memory.alert import Forecast
from memguard_native.memory.forecast import forecast

HOUR = 3600.0


def forecast_of(**changed) -> Forecast:
    numbers = {
        "room_mb": 600.0,
        "peak_above_mb": 100.0,
        "floor_below_mb": 40.0,
        "rate_mb_per_hour": 60.0,
        "rate_low_mb_per_hour": 40.0,
        "rate_high_mb_per_hour": 80.0,
        "limit_bytes": 2**30,
        "limit_source": "cgroup",
    }
    return forecast(**numbers | changed)


def test_the_estimate_is_the_room_by_the_rate():
    assert forecast_of().seconds == pytest.approx(600 / 60 * HOUR)


def test_the_earliest_time_is_from_the_peak_at_the_high_rate():
    assert forecast_of().earliest_seconds == pytest.approx((600 - 100) / 80 * HOUR)


def test_the_latest_time_is_from_the_floor_at_the_low_rate():
    assert forecast_of().latest_seconds == pytest.approx((600 + 40) / 40 * HOUR)


def test_the_limit_is_told_as_it_is():
    found = forecast_of()
    assert (found.limit_bytes, found.limit_source) == (2**30, "cgroup")


@pytest.mark.parametrize("rate", [0.0, -5.0])
def test_what_does_not_grow_never_reaches_the_limit(rate: float):
    assert forecast_of(rate_mb_per_hour=rate).seconds == math.inf
    assert forecast_of(rate_low_mb_per_hour=rate).latest_seconds == math.inf
    assert forecast_of(rate_high_mb_per_hour=rate).earliest_seconds == math.inf


def test_without_room_the_limit_is_reached_now():
    found = forecast_of(room_mb=-50.0)
    assert (found.seconds, found.earliest_seconds, found.latest_seconds) == (0, 0, 0)


def test_a_peak_that_is_higher_than_the_limit_reaches_it_now():
    found = forecast_of(room_mb=99.0)
    assert found.earliest_seconds == 0
    assert found.seconds == pytest.approx(99 / 60 * HOUR)


def test_the_estimate_is_between_the_earliest_and_the_latest():
    found = forecast_of(peak_above_mb=0.0, floor_below_mb=0.0)
    assert found.earliest_seconds < found.seconds < found.latest_seconds
