"""Reports: what is in the JSON, how its tables read, how two of them compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench.harness import Bench, Case
from bench.suites import Suite

from bench import compare, pictures, report, stamp

STAMP: dict[str, Any] = {
    "date": "2026-01-02T03:04:05+00:00",
    "cpu": "A processor",
    "cores": 2,
    "kernel": "Linux 6",
    "load": 0.5,
    "python": {
        "version": "3.11.7",
        "implementation": "CPython",
        "compiler": "GCC 12",
        "built": {"optimisation": "-O3", "pgo": False, "lto": False, "shared": True},
        "gil": True,
    },
    "versions": {"pybreaker": "1.4.1", "purgatory": None},
}


def invented_suite(name: str = "call") -> Suite:
    module = ModuleType(name, "What does it cost?\n\nMore about it.")
    module.GROUP = "breaker"  # type: ignore[attr-defined]
    return Suite(name, module)


def finished(ours: float = 32.0, *, peer: bool = False) -> Bench:
    b = Bench()
    rows = {"bare call": [20.0], "trampoline": [30.0], "memguard": [ours]}
    for name in rows:
        b.add(Case(name, chunk=lambda passes: passes))
    b.samples["ns"] = rows
    b.yardstick = "trampoline"
    b.budget("memguard", over="bare call", ratio_to="trampoline", at_most=1.25, goal="G1")
    if peer:
        b.absent("pybreaker", "not installed", "pybreaker")
        b.budget("memguard", over="bare call", ratio_to="pybreaker", at_most=1 / 70, goal="G3")
    return b


def document(*runs: Bench) -> dict[str, Any]:
    return report.whole(STAMP, True, [report.suite_report(invented_suite(), runs)])


def test_report_names_its_schema_and_survives_json() -> None:
    made = document(finished())
    assert made["schema"] == 1
    assert report.check_schema(json.loads(json.dumps(made)), "a file") == made


@pytest.mark.parametrize("foreign", [[], {}, {"schema": 2}, "text"])
def test_foreign_document_is_refused(foreign: object) -> None:
    with pytest.raises(report.SchemaError, match=r"a\.json is not a benchmark report of schema 1"):
        report.check_schema(foreign, "a.json")


def test_case_has_totals_and_what_it_adds() -> None:
    (suite,) = document(finished())["suites"]
    ours = next(case for case in suite["cases"] if case["name"] == "memguard")
    assert ours["figures"]["ns"] == {
        "min": 32.0,
        "median": 32.0,
        "added_min": 12.0,
        "added_median": 12.0,
    }


def test_baseline_adds_nothing_to_itself() -> None:
    (suite,) = document(finished())["suites"]
    assert suite["cases"][0]["figures"]["ns"] == {"min": 20.0, "median": 20.0}


def test_goal_is_judged_by_the_best_run_and_keeps_every_value() -> None:
    (suite,) = document(finished(40.0), finished(32.0), finished(36.0))["suites"]
    (gate,) = suite["gates"]
    assert gate["values"] == [2.0, 1.2, 1.6]
    assert gate["value"] == 1.2
    assert gate["met"]
    assert suite["runs"] == 3


def test_goal_missed_in_all_runs_is_missed() -> None:
    made = document(finished(40.0), finished(41.0))
    (gate,) = report.missed(made)
    assert gate["value"] == 2.0


def test_missing_peer_is_a_row_and_its_goal_says_why_it_cannot_be_judged() -> None:
    made = document(finished(peer=True))
    text = report.markdown(made)
    assert any("pybreaker" in line and "not installed" in line for line in text.splitlines())
    (gate,) = report.missed(made)
    assert gate["why"] == "pybreaker is not installed"
    assert report.gate_line("call", gate) == (
        "MISSED G3 call: memguard over bare call, ratio to pybreaker: "
        "pybreaker is not installed, goal <= 1/70"
    )


def test_line_of_a_goal_tells_value_limit_and_runs() -> None:
    (suite,) = document(finished(40.0), finished(32.0))["suites"]
    assert report.gate_line("call", suite["gates"][0]) == (
        "ok     G1 call: memguard over bare call, ratio to trampoline: 1.20, goal <= 1.25 "
        "(best of 2 runs)"
    )


def test_small_ratio_reads_as_an_inverse() -> None:
    assert report.ratio(0.025, "<= 1/25") == "1/40.0"
    assert report.ratio(0.025, "<= 0.5") == "0.025"


def test_markdown_has_stamp_question_table_and_goals() -> None:
    lines = report.markdown(document(finished())).splitlines()
    assert "A processor, 2 cores, Linux 6, load 0.5; CPython 3.11.7" in lines[2]
    assert "-O3, no PGO, no LTO" in lines[2]
    assert lines[2].endswith("quick run.")
    assert "pybreaker 1.4.1, purgatory not installed." in lines
    assert "What does it cost?" in lines
    ours = next(line for line in lines if "**memguard**" in line)
    assert [cell.strip() for cell in ours.split("|")[3:7]] == ["32.0", "12.0", "12.0", "1.20"]
    assert any(line.startswith("| G1 ") and "1.20" in line and "yes" in line for line in lines)


def test_totals_are_compared_where_the_baseline_is_the_yardstick() -> None:
    b = finished(10.0)
    b.yardstick = "bare call"
    lines = report.markdown(document(b)).splitlines()
    assert not any("added ns" in line for line in lines)
    ours = next(line for line in lines if "**memguard**" in line)
    assert [cell.strip() for cell in ours.split("|")[3:6]] == ["10.0", "10.0", "0.50"]


def test_suite_without_rounds_has_a_column_per_metric() -> None:
    b = Bench()
    b.record("memguard", "instructions", 773.0)
    b.record("memguard", "RSS, MiB", 1280.0)
    b.absent("rival", "not installed")
    lines = report.markdown(document(b)).splitlines()
    assert any("case" in line and "instructions" in line and "RSS, MiB" in line for line in lines)
    assert any("773.0" in line and "1,280" in line for line in lines)
    assert any("rival" in line and "not installed" in line for line in lines)


def test_more_metrics_than_cases_go_down_the_table() -> None:
    b = Bench()
    for clients in (1, 8, 32):
        b.record("memguard", f"{clients} clients, texts/s", 100.0 + clients)
        b.record("rival", f"{clients} clients, texts/s", 50.0 + clients)
    lines = [
        line.split("|")[1:-1] for line in report.markdown(document(b)).splitlines() if "|" in line
    ]
    rows = [[cell.strip() for cell in cells] for cells in lines]
    assert rows[0] == ["case", "**memguard**", "rival"]
    assert rows[3:] == [
        ["1 clients, texts/s", "101.0", "51.0"],
        ["8 clients, texts/s", "108.0", "58.0"],
        ["32 clients, texts/s", "132.0", "82.0"],
    ]


# --- drawing --------------------------------------------------------------------------------


def test_of_several_metrics_those_with_a_goal_are_drawn() -> None:
    b = Bench()
    for metric, ours, theirs in (("RSS, MiB", 128.0, 512.0), ("1 client, texts/s", 9.0, 8.0)):
        b.record("memguard", metric, ours)
        b.record("rival", metric, theirs)
    b.budget("memguard", ratio_to="rival", metric="RSS, MiB", at_most=1 / 3)
    [(_, label, bars)] = pictures.panels(document(b)["suites"][0])
    assert (label, bars) == ("RSS, MiB", {"memguard": 128.0, "rival": 512.0})


def test_of_several_metrics_without_any_goal_all_are_drawn() -> None:
    b = Bench()
    for metric in ("requests/s", "us per request"):
        b.record("memguard", metric, 9.0)
    labels = [label for _, label, _ in pictures.panels(document(b)["suites"][0])]
    assert labels == ["requests/s", "us per request"]


def test_a_single_metric_is_drawn_with_or_without_a_goal() -> None:
    b = Bench()
    b.record("memguard", "instructions", 773.0)
    assert len(pictures.panels(document(b)["suites"][0])) == 1


# --- comparing ------------------------------------------------------------------------------


def test_comparison_tells_each_figure_and_its_ratio() -> None:
    lines = list(compare.compare(document(finished(32.0)), document(finished(26.0))))
    assert "call memguard added ns: 12.0 -> 6.00 (x0.50)" in lines


def test_comparison_keeps_what_only_one_side_has() -> None:
    more = finished()
    more.add(Case("new peer", chunk=lambda passes: passes))
    more.samples["ns"]["new peer"] = [50.0]
    there = list(compare.compare(document(finished()), document(more)))
    back = list(compare.compare(document(more), document(finished())))
    assert "call new peer added ns: not measured -> 30.0" in there
    assert "call new peer added ns: 30.0 -> not measured" in back


def test_comparison_takes_totals_where_the_baseline_is_the_yardstick() -> None:
    b = finished(10.0)
    b.yardstick = "bare call"
    lines = list(compare.compare(document(b), document(b)))
    assert "call memguard ns: 10.0 -> 10.0 (x1.00)" in lines


def test_comparison_of_two_machines_says_so() -> None:
    other = document(finished()) | {"stamp": STAMP | {"cpu": "Another"}}
    lines = list(compare.compare(document(finished()), other))
    assert lines[0] == "note: cpu differs: A processor / Another"


# --- the stamp ------------------------------------------------------------------------------


def test_stamp_has_what_a_figure_needs() -> None:
    made = stamp.stamp()
    assert set(made) == set(STAMP)
    assert set(made["python"]) == set(STAMP["python"])
    assert made["versions"]["numpy"]
    json.dumps(made)


@pytest.mark.parametrize(
    ("load", "warned"), [(None, False), (0.5, False), (2.0, False), (2.1, True)]
)
def test_busy_machine_is_warned_about(load: float | None, warned: bool) -> None:
    assert (stamp.overloaded(load, 2) is not None) is warned


# --- goals that are told, planes and shares -------------------------------------------------


def with_reported_goal() -> Bench:
    b = Bench()
    b.record("memguard", "delay, min", 300.0)
    b.budget("memguard", metric="delay, min", at_most=200.0, binding=False)
    return b


def test_goal_that_does_not_bind_is_told_as_missed_and_fails_nothing() -> None:
    made = document(with_reported_goal())
    (gate,) = made["suites"][0]["gates"]
    assert not gate["met"]
    assert report.missed(made) == []
    assert "**no**, not binding" in report.markdown(made)
    assert report.gate_line("detector", gate) == (
        "missed detector: delay, min: memguard: 300.00, goal <= 200"
    )


def test_small_figure_is_not_rounded_to_nothing() -> None:
    assert report.number(0.0123) == "0.012"
    assert report.number(0.0) == "0"


def test_small_limit_that_is_no_ratio_reads_as_it_is() -> None:
    b = Bench()
    b.record("memguard", "false alerts per hour", 0.012)
    b.budget("memguard", metric="false alerts per hour", at_most=0.01)
    (gate,) = document(b)["suites"][0]["gates"]
    assert gate["limit"] == "<= 0.01"
    assert report.gate_line("x", gate).endswith("0.012, goal <= 0.01")


def in_a_plane() -> Bench:
    b = Bench()
    for name, across, up in (("memguard", 0.0, 150.0), ("rival", 2.0, 10.0), ("near", 3.0, 10.5)):
        b.record(name, "false alerts", across)
        b.record(name, "delay", up)
    b.record("memguard, no delay known", "false alerts", 0.5)
    b.plane("false alerts", "delay")
    b.curve("memguard, bolder", [(0.0, 150.0), (0.01, 120.0)])
    return b


def test_plane_is_in_the_report_with_its_curves() -> None:
    plane = json.loads(json.dumps(document(in_a_plane())))["suites"][0]["plane"]
    assert plane == {
        "x": "false alerts",
        "y": "delay",
        "curves": {"memguard, bolder": [[0.0, 150.0], [0.01, 120.0]]},
    }
    assert document(finished())["suites"][0]["plane"] is None


def in_shares() -> Bench:
    b = Bench()
    for name in ("memguard", "memguard, no load"):
        b.record(name, "share: causes right", 0.9)
        b.record(name, "width", 1.5)
        b.budget(name, metric="share: causes right", at_least=0.9)
        b.budget(name, metric="width", at_most=2.5)
    return b


@pytest.mark.parametrize("make", [in_a_plane, in_shares, finished])
def test_picture_is_900_pixels_wide(make: Callable[[], Bench], tmp_path: Path) -> None:
    pictures.draw(document(make()), tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 900
