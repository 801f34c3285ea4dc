"""The report of a soak: its sum, its table, and where it lies."""

from __future__ import annotations

import json
from pathlib import Path

from bench.recycle import soak

from bench import stamp

COUNTS = {"failed": 0, "extra_connects": 0, "handed_over": 5, "aborted": 0}
ROWS = [
    {"loop": "uvloop", "requests": 1200, "recycles": 3, **COUNTS}
    | {"capacity_gap_seconds": 0.0, "p99_ms": 9.5, "max_ms": 20.0},
    {"loop": "asyncio", "requests": 800, "recycles": 4, **COUNTS}
    | {"capacity_gap_seconds": 0.0, "p99_ms": 8.0, "max_ms": 31.0},
]


def test_counts_are_added_up_and_of_times_the_largest_is_told() -> None:
    total = soak.total(ROWS)
    assert (total["requests"], total["recycles"], total["handed_over"]) == (2000, 7, 10)
    assert (total["p99_ms"], total["max_ms"]) == (9.5, 31.0)


def test_report_is_written_as_json_and_as_a_table(tmp_path: Path) -> None:
    soak.write(ROWS, tmp_path)
    folder = tmp_path / stamp.interpreter()
    written = json.loads((folder / "recycle_soak.json").read_text())
    assert (written["schema"], written["rows"], written["total"]) == (1, ROWS, soak.total(ROWS))
    lines = (folder / "recycle_soak.md").read_text().splitlines()
    assert written["stamp"]["date"] in lines[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-5:]]
    assert cells[0][:3] == ["loop", "requests", "recycles"]
    assert cells[2][:3] == ["uvloop", "1,200", "3"]
    assert cells[4][:3] == ["**all**", "**2,000**", "**7**"]
