"""`memguard replay`: the report for people, JSON for programs, and the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from memguard_native.cli.main import main

TRACES = Path(__file__).parents[2] / "traces"
LEAK = str(TRACES / "leak_dict_12.csv")
OK = str(TRACES / "ok_idle.csv")
FAST = ("--minute-s", "0.25")
WINDOW = (*FAST, "--rule", "window")


def test_the_first_line_is_the_verdict(capsys):
    assert main(["replay", OK, *FAST]) == 0
    first, _, summary, line, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{OK}: STEADY: no leak"
    assert summary == "420 samples, 7 h 00 min, 4.8 to 4.8 MB"
    assert len(line) == 72


def test_alerts_are_a_table(capsys):
    assert main(["replay", LEAK, *WINDOW]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{LEAK}: NOTICE: memory grows by ")
    (head,) = (place for place, line in enumerate(lines) if line.startswith("RAISED"))
    assert lines[head + 1].split()[:6] == ["notice", "12", "min", "11", "12.2", "MB/h"]


def test_nothing_is_said_on_stderr(capfd):
    assert main(["replay", LEAK, *WINDOW]) == 0
    assert capfd.readouterr().err == ""


def test_json_is_an_object_a_line_for_each_trace(capsys):
    assert main(["replay", LEAK, OK, *WINDOW, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["trace"] for one in found] == [LEAK, OK]
    assert [bool(one["alerts"]) for one in found] == [True, False]


def test_floor_is_the_rule_unless_asked_otherwise(capsys):
    assert main(["replay", OK, *FAST, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rule"] == "floor"


def test_fail_on_leak_exits_with_3(capsys):
    assert main(["replay", LEAK, *WINDOW, "--fail-on-leak"]) == 3
    assert main(["replay", OK, *WINDOW, "--fail-on-leak"]) == 0
    assert main(["replay", LEAK, OK, *WINDOW, "--fail-on-leak", "--json"]) == 3
    assert main(["replay", LEAK, *WINDOW, "--fail-on-leak", "--threshold", "500"]) == 0


def test_a_bad_file_exits_with_2_and_names_row_and_column(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("t,rss_kb\n0,1\n60,many\n")
    assert main(["replay", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"memguard: {path}, row 1, column rss_kb: must be a finite number >= 0, or nothing, "
        "got 'many'\n"
    )
    assert main(["replay", str(tmp_path / "none.csv")]) == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--rule", "floors"], "rule must be one of 'window', 'floor', 'both', got 'floors'"),
        (["--minute-s", "0"], "minute_s must be a finite number > 0, got 0.0"),
        (["--threshold", "-1"], "threshold_mb_per_hour must be a finite number > 0, got -1.0"),
        (["--warm-up", "soon"], "--warm-up must be a duration such as"),
        (["--limit", "much"], "'much'"),
        ([OK, "--png", "x.png"], "--png is for one trace, got 'x.png'"),
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments, problem):
    assert main(["replay", LEAK, *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_a_picture_is_drawn(tmp_path, capsys):
    path = tmp_path / "x.png"
    assert main(["replay", LEAK, *WINDOW, "--limit", "128MiB", "--png", str(path)]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_without_matplotlib_nothing_is_judged_first(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["replay", LEAK, "--png", str(tmp_path / "x.png")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pip install 'memguard-native[plots]'" in captured.err


def test_a_hostile_name_of_a_file_is_not_obeyed(tmp_path, capsys):
    path = tmp_path / "\x1b[2Jx.csv"
    path.write_text("t,rss_kb\n0,1\n")
    assert main(["replay", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
