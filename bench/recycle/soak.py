"""The report of a soak: what each combination of settings came to under load, and their sum.

A row has the settings and the counts that `tests/stress/test_recycling_load.py` has checked: it is
written only where nothing has failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import grid, stamp_lines
from bench.stamp import interpreter, stamp

# Those that are added up; of all others the largest is told.
_COUNTS = (
    "requests",
    "failed",
    "recycles",
    "extra_connects",
    "handed_over",
    "aborted",
    "capacity_gap_seconds",
)
_LARGEST = ("p99_ms", "max_ms")


def write(rows: Sequence[Mapping[str, Any]], results: Path) -> None:
    """Write `recycle_soak.json` and `.md` into the folder of this interpreter below `results`."""
    report = {"schema": 1, "stamp": stamp(), "rows": list(rows), "total": total(rows)}
    folder = results / interpreter()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recycle_soak.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "recycle_soak.md").write_text(markdown(report))


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    added = {name: sum(row[name] for row in rows) for name in _COUNTS}
    return {**added, **{name: max(row[name] for row in rows) for name in _LARGEST}}


def markdown(report: Mapping[str, Any]) -> str:
    names = list(report["rows"][0])
    last = ["**all**"] + [""] * (len(names) - 1)
    for name, value in report["total"].items():
        last[names.index(name)] = f"**{_shown(value)}**"
    rows = [[_shown(row[name]) for name in names] for row in report["rows"]]
    head = [name.replace("_", " ") for name in names]
    lines = ["# Recycling under load", "", *stamp_lines(report), "", *grid([head, *rows, last])]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
