"""The report: one dictionary (JSON, `"schema": 1`), and its tables in Markdown.

A suite may be run up to three times. Its figures are those of the last run; the value of a goal is
the best of all runs, and every run's value is kept beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bench import rivals
from bench.harness import Bench, Budget
from bench.suites import Suite

SCHEMA = 1


class SchemaError(ValueError):
    """A file is not a report that this version can read."""


def suite_report(suite: Suite, runs: Sequence[Bench]) -> dict[str, Any]:
    """One suite's part: its figures and its goals."""
    shown = runs[-1]
    return {
        "name": suite.name,
        "group": suite.group,
        "question": suite.question,
        "baseline": shown.baseline,
        "yardstick": shown.yardstick,
        "rounds": shown.rounds(),
        "runs": len(runs),
        "cases": [_case_report(shown, name) for name in shown.cases],
        "gates": [gate_report(budget, runs) for budget in shown.budgets],
        "plane": None if shown.drawn is None else dataclasses.asdict(shown.drawn),
        "counted": shown.counted,
        "timelines": {name: dataclasses.asdict(line) for name, line in shown.timelines.items()},
    }


def gate_report(budget: Budget, runs: Sequence[Bench]) -> dict[str, Any]:
    values = [run.value(budget) for run in runs]
    best = None
    for value in values:
        best = budget.better(best, value)
    return {
        "goal": budget.goal,
        "subject": budget.subject(),
        "metric": budget.metric,
        "limit": budget.limit(),
        "values": values,
        "value": best,
        "met": budget.met(best),
        "binding": budget.binding,
        "why": None if best is not None else _unjudged(budget, runs[-1]),
    }


def _unjudged(budget: Budget, bench: Bench) -> str:
    for name in (budget.case, budget.over, budget.ratio_to):
        case = bench.cases.get(name) if name else None
        if case is not None and case.absent is not None:
            return f"{case.name} is {case.absent}"
    return "it was not measured"


def _case_report(bench: Bench, name: str) -> dict[str, Any]:
    case = bench.cases[name]
    figures: dict[str, Any] = {}
    for metric in bench.samples:
        total = bench.summary(name, metric=metric)
        if total is None:
            continue
        figures[metric] = {"min": total.minimum, "median": total.median}
        added = bench.summary(name, bench.baseline, metric) if name != bench.baseline else None
        if added is not None and bench.baseline is not None:
            figures[metric] |= {"added_min": added.minimum, "added_median": added.median}
    return {
        "name": name,
        "package": case.package,
        "version": rivals.version(case.package) if case.package else None,
        "absent": case.absent,
        "figures": figures,
    }


def whole(stamp: dict[str, Any], quick: bool, suites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": SCHEMA, "quick": quick, "stamp": stamp, "suites": list(suites)}


def check_schema(document: Any, origin: str) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise SchemaError(f"{origin} is not a benchmark report of schema {SCHEMA}")
    return document


def missed(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals that fail a check."""
    gates = [gate for suite in report["suites"] for gate in suite["gates"]]
    return [gate for gate in gates if not is_settled(gate)]


def is_settled(gate: dict[str, Any]) -> bool:
    """Whether a goal was met, or need not be."""
    return bool(gate["met"] or not gate["binding"])


# --- Markdown -------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    parts = ["# Benchmark results", "", *stamp_lines(report)]
    for suite in report["suites"]:
        parts += ["", f"## {suite['name']}", "", suite["question"], "", *_table(suite)]
        if suite["gates"]:
            parts += ["", *_gates(suite["gates"])]
    return "\n".join(parts) + "\n"


def stamp_lines(report: Mapping[str, Any]) -> list[str]:
    """When, where and with what a report was made."""
    stamp = report["stamp"]
    python = stamp["python"]
    built = python["built"]
    made = [built["optimisation"] or "unknown optimisation"]
    made += [name.upper() for name in ("pgo", "lto") if built[name]] or ["no PGO, no LTO"]
    versions = ", ".join(
        f"{name} {number or 'not installed'}" for name, number in stamp["versions"].items()
    )
    return [
        f"{stamp['date']}, {stamp['cpu']}, {stamp['cores']} cores, {stamp['kernel']}, "
        f"load {stamp['load']}; {python['implementation']} {python['version']} "
        f"({python['compiler']}, {', '.join(made)}{'' if python['gil'] else ', no GIL'})"
        f"{'; quick run' if report.get('quick') else ''}.",
        "",
        f"{versions}.",
    ]


def _table(suite: dict[str, Any]) -> list[str]:
    timed = suite["baseline"] is not None
    return _timed_table(suite) if timed else _recorded_table(suite)


def _timed_table(suite: dict[str, Any]) -> list[str]:
    # Where a rival is the baseline, as for rejections, nothing is added to anything.
    kinds = {"min": "total ns", "median": "total ns, median"}
    if suite["baseline"] != suite["yardstick"]:
        kinds = {"min": "total ns", "added_min": "added ns", "added_median": "added ns, median"}
    compared = list(kinds)[-2]
    figures = {case["name"]: case["figures"].get("ns", {}) for case in suite["cases"]}
    unit = figures.get(suite["yardstick"], {}).get(compared)
    rows = [["case", "version", *kinds.values(), f"in units of {suite['yardstick']}"]]
    for case in suite["cases"]:
        own = figures[case["name"]]
        cells = [number(own.get(kind)) for kind in kinds]
        if case["absent"]:
            cells[0] = case["absent"]
        relative = f"{own[compared] / unit:.2f}" if unit and compared in own else ""
        rows.append([_named(case["name"]), case["version"] or "", *cells, relative])
    return grid(rows)


def _recorded_table(suite: dict[str, Any]) -> list[str]:
    metrics = list(dict.fromkeys(m for case in suite["cases"] for m in case["figures"]))
    rows = [["case", "version", *metrics]]
    for case in suite["cases"]:
        figures = [number(case["figures"].get(m, {}).get("min")) for m in metrics]
        if case["absent"]:
            figures[:1] = [case["absent"]]
        rows.append([_named(case["name"]), case["version"] or "", *figures])
    # A table is read from top to bottom: what there is more of goes down.
    if len(metrics) > len(suite["cases"]):
        rows = [list(column) for column in zip(*rows, strict=True)]
    return grid(rows)


def _gates(gates: Sequence[dict[str, Any]]) -> list[str]:
    rows = [["goal", "what", "limit", "measured", "met"]]
    for gate in gates:
        met = "yes" if gate["met"] else "**no**" if gate["binding"] else "**no**, not binding"
        rows.append([gate["goal"], subject(gate), gate["limit"], _measured(gate), met])
    return grid(rows)


def gate_line(suite: str, gate: dict[str, Any]) -> str:
    """One goal for the terminal."""
    verdict = "ok    " if gate["met"] else "MISSED" if gate["binding"] else "missed"
    runs = f" (best of {len(gate['values'])} runs)" if len(gate["values"]) > 1 else ""
    goal = f"{gate['goal']} " if gate["goal"] else ""
    measured = f"{_measured(gate)}, goal {gate['limit']}"
    return f"{verdict} {goal}{suite}: {subject(gate)}: {measured}{runs}"


def subject(gate: dict[str, Any]) -> str:
    """What a goal compares."""
    compared: str = gate["subject"]
    return compared if gate["metric"] == "ns" else f"{gate['metric']}: {compared}"


def _measured(gate: dict[str, Any]) -> str:
    value = gate["value"]
    return gate["why"] if value is None else ratio(value, gate["limit"])


def ratio(value: float, limit: str) -> str:
    """A small ratio reads as its inverse, as its limit does."""
    if "1/" in limit and value > 0:
        return f"1/{1 / value:.1f}"
    return number(value) if 0 < abs(value) < 0.1 else f"{value:.2f}"


def number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) < 0.1:
        return f"{value:.3f}" if value else "0"
    if abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _named(name: str) -> str:
    return f"**{name}**" if name.startswith("memguard") else name


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; its first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
