"""Replay: the monitor's own verdicts, row by row."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.replay import replay
from memguard_native.memory.trace_file import read_trace

TRACES = Path(__file__).parents[2] / "traces"
LABELS = list(csv.DictReader((TRACES / "labels.csv").read_text().splitlines()))
LEAK = TRACES / "leak_dict_12.csv"


class ListProbe:
    """A probe that finds the samples of a list."""

    def __init__(self, samples):
        self._samples = iter(samples)

    def sample(self):
        return next(self._samples)


def test_json_has_these_keys():
    found = replay(LEAK, minute_s=0.25, rule="window").to_dict()
    assert list(found) == [
        "schema", "trace", "samples", "minutes", "rule", "alerts", "suspects", "forecast",
    ]  # fmt: skip
    assert (found["schema"], found["trace"], found["samples"]) == (1, str(LEAK), 420)
    assert (found["minutes"], found["rule"], found["forecast"]) == (420.2, "window", None)
    alert = found["alerts"][0]
    assert alert.keys() >= {
        "sample", "minute", "rule", "severity", "signal", "window_minutes", "rate_mb_per_hour",
        "rate_low_mb_per_hour", "rate_high_mb_per_hour", "cause", "parts_mb_per_hour", "forecast",
        "cleared_sample",
    }  # fmt: skip
    assert (alert["sample"], alert["minute"]) == (11, 12.0)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("rule", ["floor", "window", "both"])
def test_its_verdicts_are_those_of_the_monitor(rule):
    alerts = []
    probe = ListProbe(read_trace(LEAK, minute_s=0.25))
    monitor = MemoryMonitor(probe=probe, on_alert=alerts.append, rule=rule, evidence=False)
    for _ in range(420):
        monitor.tick()
    replayed = replay(LEAK, minute_s=0.25, rule=rule).alerts
    assert [(one.rule, one.sample) for one in replayed] == [
        (one.rule, one.sample) for one in alerts
    ]


@pytest.mark.parametrize("rule", ["floor", "window", "both"])
def test_later_rows_change_nothing_of_before(tmp_path, rule):
    lines = (TRACES / "leak_bursty_16.csv").read_text().splitlines(keepends=True)
    whole = replay(TRACES / "leak_bursty_16.csv", minute_s=0.25, rule=rule)
    for rows in (100, 260, 400):
        path = tmp_path / "cut.csv"
        path.write_text("".join(lines[: rows + 1]))
        cut = replay(path, minute_s=0.25, rule=rule)
        assert [(one.sample, one.rate_mb_per_hour, one.cause) for one in cut.alerts] == [
            (one.sample, one.rate_mb_per_hour, one.cause)
            for one in whole.alerts
            if one.sample < rows
        ]


def test_time_is_what_the_trace_stands_for(tmp_path):
    slow, fast = tmp_path / "slow.csv", tmp_path / "fast.csv"
    for path, step in ((slow, 60), (fast, 0.25)):
        rows = "".join(f"{row * step},{row * 512}\n" for row in range(30))
        path.write_text("t,anon_kb\n" + rows)
    told = [
        replay(path, minute_s=minute_s, rule="window")
        for path, minute_s in ((slow, 60.0), (fast, 0.25))
    ]
    assert told[0].alerts[0].rate_mb_per_hour == pytest.approx(30)
    assert told[0].alerts == told[1].alerts
    assert told[0].minutes == told[1].minutes == 29


def test_the_threshold_is_a_limit_of_growth():
    assert replay(LEAK, minute_s=0.25, rule="window", threshold_mb_per_hour=500).alerts == ()


def test_all_rows_of_the_development_traces_are_read():
    for label in LABELS:
        found = replay(TRACES / f"{label['name']}.csv", minute_s=0.25, rule="window")
        assert found.samples == int(label["samples"]), label["name"]


def test_seven_hours_take_less_than_two_seconds():
    begin = time.perf_counter()
    replay(LEAK, minute_s=0.25, rule="both")
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"minute_s": 0}, "minute_s"),
        ({"minute_s": float("nan")}, "minute_s"),
        ({"rule": "floors"}, "rule"),
        ({"threshold_mb_per_hour": 0}, "threshold_mb_per_hour"),
    ],
)
def test_bad_arguments_are_refused(settings, field):
    with pytest.raises(ConfigError) as caught:
        replay(LEAK, **settings)
    assert caught.value.field == field


def test_a_single_row_is_judged(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t,rss_kb\n0,1\n")
    found = replay(path)
    assert (found.samples, found.alerts, found.state) == (1, (), "learning")
