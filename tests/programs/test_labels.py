"""What the programs are said to do, they do."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.programs.recorder import COLUMNS, run
from tests.programs.registry import Service, load_programs

PROGRAMS = load_programs("twins")
ROOT = Path(__file__).parents[2]


def test_a_trace_has_the_columns_of_the_given_traces_and_a_row_a_minute() -> None:
    given = next(iter((ROOT / "tests" / "traces").glob("leak_*.csv")))
    rows = io.StringIO()
    run(PROGRAMS["ok_heartbeat"], Service(seed=0), minutes=4, minute_s=0.02, rows=rows)
    trace = list(csv.reader(rows.getvalue().splitlines()))
    assert trace[0] == list(COLUMNS) == given.read_text().split("\n", 1)[0].split(",")
    assert [line[0] for line in trace[1:]] == ["0", "1", "2", "3"]
    assert all(int(line[COLUMNS.index("anon_kb")]) > 0 for line in trace[1:])


@pytest.mark.parametrize("directory", ["traces", "traces/unseen", "traces/blind"])
def test_labels_name_what_is_there(directory: str) -> None:
    with open(ROOT / "tests" / directory / "labels.csv") as file:
        labels = {label["name"]: label for label in csv.DictReader(file)}
    assert set(labels) == {
        path.stem for path in (ROOT / "tests" / directory).glob("*.csv") if path.stem != "labels"
    }


@pytest.mark.parametrize("directory", ["unseen", "blind"])
def test_the_labels_of_recorded_traces_are_those_of_the_programs(directory: str) -> None:
    with open(ROOT / "tests" / "traces" / directory / "labels.csv") as file:
        for label in csv.DictReader(file):
            own = PROGRAMS[label["name"]].label()
            assert label == {key: str(value) for key, value in own.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.leak])
def test_a_leak_grows_as_its_label_says_and_not_before_its_onset(name: str) -> None:
    program = PROGRAMS[name]
    command = [sys.executable, "-m", "tests.programs.measure", name]
    measured = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    # What fragmentation keeps is free memory of malloc, or of the Python allocator.
    grown = measured["private" if program.cause == "fragmentation" else "live"]
    assert grown == pytest.approx(program.mb_per_hour, rel=0.05)
    assert measured["before"] < 0.05 * program.mb_per_hour
