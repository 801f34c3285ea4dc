"""How times, sizes and verdicts read."""

from __future__ import annotations

import math

import pytest

from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.wording import (
    change,
    count,
    forecast_text,
    size,
    span,
    sparkline,
    verdict,
)


def alert(**changes) -> Alert:
    return Alert(
        **{
            "rule": "floor", "severity": "warning", "sample": 243, "at": 0.0, "signal": "live",
            "window_minutes": 180.0, "rate_mb_per_hour": 23.44, "rate_low_mb_per_hour": 22.1,
            "rate_high_mb_per_hour": 25.0, "threshold_mb_per_hour": 10.0, "cause": "native-heap",
            **changes,
        }
    )  # fmt: skip


def suspect(**changes) -> Suspect:
    return Suspect(**{"sample": 71, "at": 0.0, "rate_mb_per_hour": 12.0, **changes})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.25, "0.25 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 00 min"),
        (11_520, "3 h 12 min"), (47 * 3600, "47 h 00 min"), (100 * 3600, "4 d 4 h"),
        (math.inf, "never"),
    ],
)  # fmt: skip
def test_times(seconds, text):
    assert span(seconds) == text


def test_sizes_and_counts():
    assert (size(184.25 * 2**20), size(2**31)) == ("184.2 MB", "2.00 GB")
    assert (count(1, "sample"), count(2, "sample")) == ("1 sample", "2 samples")


def test_a_forecast_tells_its_interval_and_whose_limit_it_is():
    forecast = Forecast(
        seconds=11_520,
        earliest_seconds=9600,
        latest_seconds=math.inf,
        limit_bytes=2**31,
        limit_source="cgroup",
    )
    assert forecast_text(forecast) == (
        "the limit of 2.00 GB (cgroup) is reached in 3 h 12 min (2 h 40 min to never)"
    )


@pytest.mark.parametrize(
    ("alerts", "suspects", "text"),
    [
        ([], [], "STEADY: no leak"),
        ([alert()], [], "LEAK: native heap grows by 23.4 MB/h (22.1 to 25.0)"),
        (
            [alert(cleared_sample=300)],
            [],
            "LEAK, over since sample 300: native heap grows by 23.4 MB/h (22.1 to 25.0)",
        ),
        (
            [alert(rule="window", rate_low_mb_per_hour=None)],
            [],
            "NOTICE: memory grows by 23.4 MB/h; the window rule cannot tell a leak",
        ),
        ([], [suspect()], "SUSPECT: memory has a trend of 12.0 MB/h, no leak yet"),
        ([], [suspect(cleared_sample=90)], "STEADY: no leak"),
        (
            [alert(), alert(rule="window")],
            [suspect()],
            "LEAK: native heap grows by 23.4 MB/h (22.1 to 25.0)",
        ),
    ],
)  # fmt: skip
def test_verdicts(alerts, suspects, text):
    assert verdict(alerts, suspects) == text


def test_what_was_watched_for_too_short_a_time_is_not_called_healthy():
    assert verdict([], [], is_known=False).startswith("TOO EARLY")
    assert verdict([alert()], [], is_known=False).startswith("LEAK")


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(range(800), 8) == "▁▂▃▄▅▆▇█"


def test_a_sparkline_keeps_a_peak_of_one_sample():
    assert sparkline([*[0] * 50, 9, *[0] * 49], 10).count("█") == 1


def test_noise_is_no_wave():
    assert set(sparkline([100, 100.1, 100, 99.9], 10)) <= {"▁", "▂"}


def test_a_sparkline_of_nothing_is_empty():
    assert sparkline([], 10) == sparkline([math.nan], 10) == ""


@pytest.mark.parametrize(
    ("mb", "text"), [(3.84, "+3.8"), (-0.16, "-0.2"), (0.0, "+0.0"), (-0.04, "+0.0")]
)
def test_a_change_has_a_sign_and_none_is_never_minus_nothing(mb, text):
    assert change(mb) == text
