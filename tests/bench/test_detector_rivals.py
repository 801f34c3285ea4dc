"""The rivals warn where their rules say so, and of what they are known to be wrong about."""

from __future__ import annotations

import numpy as np
import pytest
from bench.detector import rivals
from bench.rivals import hourly_regression, least_squares, mann_kendall, original_window
from tests.bench.recordings import recorded, rising

LINE = np.array(rising(20.0, minutes=200))
FLAT = np.full(200, 100.0)


def test_original_warns_from_the_first_whole_megabyte_on() -> None:
    # 1 MB * 60 / 12 is 5 MB/h, 3 MB are 15: in minute 9 at 20 MB/h.
    assert np.flatnonzero(original_window.warned(LINE))[0] == 8
    assert not original_window.warned(FLAT).any()


def test_original_warns_of_a_jump_for_a_window_and_then_no_more() -> None:
    jump = np.array([100.0] * 20 + [104.0] * 40)
    assert np.flatnonzero(original_window.warned(jump)).tolist() == list(range(20, 31))


@pytest.mark.parametrize("samples", [12, 60, 120])
def test_least_squares_warns_of_a_line_once_its_window_is_full(samples: int) -> None:
    assert np.flatnonzero(least_squares.warned(LINE, samples))[0] == samples - 1
    assert not least_squares.warned(np.array(rising(9.9, 200)), samples).any()


def test_least_squares_agrees_with_a_fit_of_numpy() -> None:
    noise = LINE + np.random.default_rng(1).normal(0, 3, 200)
    expected = [np.polyfit(np.arange(60) / 60, noise[k - 59 : k + 1], 1)[0] for k in range(59, 200)]
    assert least_squares.warned(noise, 60)[59:].tolist() == [slope > 10 for slope in expected]


def test_mann_kendall_warns_of_a_line_and_not_of_noise() -> None:
    noise = FLAT + np.random.default_rng(2).normal(0, 1, 200)
    assert np.flatnonzero(mann_kendall.warned(LINE, 60))[0] == 59
    assert not mann_kendall.warned(noise, 60).any()


def test_mann_kendall_wants_significance_beside_the_slope() -> None:
    wild = FLAT + np.random.default_rng(3).normal(0, 40, 200)
    steep = least_squares.warned(wild, 60)
    assert steep.any()
    assert mann_kendall.warned(wild, 60).sum() < steep.sum()


def test_hourly_regression_wants_two_hours_that_rise() -> None:
    warned = hourly_regression.warned(LINE)
    assert np.flatnonzero(warned)[0] == 119
    late = np.concatenate([FLAT[:140], LINE[:60]])
    assert not hourly_regression.warned(late).any()


@pytest.mark.parametrize("minutes", [0, 1, 11, 59, 119])
def test_no_rival_trips_over_a_short_trace(minutes: int) -> None:
    trace = recorded(rising(20.0, minutes))
    for rival in rivals.RIVALS:
        judge = rival.load()
        assert judge is not None  # scipy is in the group `bench`
        judge(trace)
    rivals.by_window_rule(trace)


def test_alarm_is_raised_where_a_warning_begins() -> None:
    warned = np.array([False, True, True, False, True])
    assert [alarm.sample for alarm in rivals.at_rising_edges(warned).alarms] == [1, 4]


def test_warning_from_the_first_minute_on_is_an_alarm() -> None:
    assert len(rivals.at_rising_edges(np.array([True, True])).alarms) == 1


def test_our_window_rule_warns_when_its_window_is_full() -> None:
    (alarm,) = rivals.by_window_rule(recorded(rising(20.0))).alarms
    assert alarm.sample == 11


def test_rival_without_its_library_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert all(judge is None for _, judge in rivals.each())
