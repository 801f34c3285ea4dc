"""The command behind `python bench/run.py`.

Exit codes: 0 all well; 1 a goal was missed or could not be judged (`--check` only); 2 wrong
arguments or an unreadable report; 3 a suite failed or this package is not installed; 130
interrupted.
Tables go to stdout, progress and warnings to stderr. With `--json -` stdout is the JSON alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from bench import compare, pictures, report, stamp, suites
from bench.harness import FULL, QUICK, Bench, Effort

RUNS = 3
RESULTS = Path(__file__).resolve().parent / "results"

OK, MISSED, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

EPILOG = """\
exit codes: 0 all well; 1 with --check, a goal was missed or could not be judged; 2 wrong
arguments or an unreadable report; 3 a suite failed or this package is not installed; 130
interrupted.

A goal is judged by the best of at most three runs of its suite. Whole groups of a full run are
written to bench/results/PYTHON/GROUP.{json,md,png}, PYTHON being python3.11 and the like, so that
several stand side by side; --quick writes to bench/results/quick/PYTHON/.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure memguard-native beside its rivals, in one process, interleaved.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("suites", nargs="*", metavar="SUITE", help="suites or groups; default: all")
    p.add_argument("--quick", action="store_true", help="fewer rounds: at most 60 s a suite")
    p.add_argument("--check", action="store_true", help="exit 1 if a goal is missed")
    p.add_argument("--json", metavar="FILE", help="write the report there as well; - is stdout")
    p.add_argument("--compare", nargs=2, metavar=("A", "B"), help="compare two JSON reports")
    p.add_argument("--list", action="store_true", help="list suites by group and what they ask")
    p.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="where results go, those of each Python into a folder of their own",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.list:
            return _list(sys.stdout)
        if arguments.compare:
            return _compare(*map(Path, arguments.compare))
        return _measure(arguments)
    except ModuleNotFoundError as error:
        print(f"{error}: `make bench` installs all that the benchmarks need", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _list(out: TextIO) -> int:
    for suite in suites.every():
        print(f"{suite.group:12} {suite.name:18} {suite.question}", file=out)
    return OK


def _compare(before: Path, after: Path) -> int:
    documents = []
    for path in (before, after):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            documents.append(report.check_schema(document, str(path)))
        except (OSError, ValueError) as error:
            print(f"cannot read {path}: {error}", file=sys.stderr)
            return USAGE
    for line in compare.compare(*documents):
        print(line)
    return OK


def _measure(arguments: argparse.Namespace) -> int:
    try:
        selected = suites.select(arguments.suites)
    except KeyError as error:
        print(f"no suite or group is called {error.args[0]!r}; try --list", file=sys.stderr)
        return USAGE
    effort = QUICK if arguments.quick else FULL
    machine = stamp.stamp()
    warning = stamp.overloaded(machine["load"], machine["cores"])
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    parts, broken = [], []
    for suite in selected:
        try:
            parts.append(measure_suite(suite, effort, RUNS if arguments.check else 1))
        except Exception:  # noqa: BLE001 - one broken suite must not lose the figures of the others
            traceback.print_exc()
            broken.append(suite.name)
    document = report.whole(machine, arguments.quick, parts)
    results = arguments.results / "quick" if arguments.quick else arguments.results
    results /= stamp.interpreter()
    _print(document, arguments)
    write_results(document, _stems(arguments.suites, parts), results)
    if broken:
        print(f"failed: {', '.join(broken)}", file=sys.stderr)
        return BROKEN
    return MISSED if arguments.check and report.missed(document) else OK


def measure_suite(suite: suites.Suite, effort: Effort, most_runs: int) -> dict[str, Any]:
    """Run a suite until each of its goals was met by a run, `most_runs` times at most.

    None is begun that would end after `effort.suite_seconds`, going by those before it.
    """
    runs: list[Bench] = []
    start = time.monotonic()
    for attempt in range(1, most_runs + 1):
        progress = Progress(f"{suite.group}/{suite.name}, run {attempt}")
        bench = Bench(effort, progress)
        with bench.resources:  # also if the suite fails before it runs
            suite.module.suite(bench)
            bench.run()
        progress.done()
        runs.append(bench)
        result = report.suite_report(suite, runs)
        spent = time.monotonic() - start
        if all(report.is_settled(gate) for gate in result["gates"]):
            break
        if spent + spent / attempt > effort.suite_seconds:
            break
    return result


class Progress:
    """What is being measured: one line, rewritten on a terminal, once per suite elsewhere."""

    def __init__(self, title: str, out: TextIO | None = None) -> None:
        self.title = title
        self.out = out or sys.stderr
        self.rewriting = self.out.isatty()
        print(f"{title} ...", end="\n" if not self.rewriting else "", file=self.out, flush=True)

    def __call__(self, text: str) -> None:
        if self.rewriting:
            print(f"\r\x1b[K{self.title}: {text}", end="", file=self.out, flush=True)

    def done(self) -> None:
        if self.rewriting:
            print("\r\x1b[K", end="", file=self.out, flush=True)


def _stems(asked: Sequence[str], parts: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of result files, each with its suites: one per group or suite that was asked for."""
    groups = list(dict.fromkeys(part["group"] for part in parts))
    stems = {}
    for name in asked or groups:
        stems[name] = [p["name"] for p in parts if name in (p["group"], p["name"])]
    return {stem: names for stem, names in stems.items() if names}


def write_results(document: dict[str, Any], stems: dict[str, list[str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, names in stems.items():
        part = document | {"suites": [s for s in document["suites"] if s["name"] in names]}
        text = json.dumps(part, indent=1) + "\n"
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")
        (folder / f"{stem}.md").write_text(report.markdown(part), encoding="utf-8")
        pictures.draw(part, folder / f"{stem}.png")
        for suite in suites.every():
            if suite.name in names:
                for name, draw in suite.pictures.items():
                    draw(folder / f"{stem}_{name}.png")


def _print(document: dict[str, Any], arguments: argparse.Namespace) -> None:
    to_stdout = arguments.json == "-"
    out = sys.stderr if to_stdout else sys.stdout
    print(report.markdown(document), file=out)
    for suite in document["suites"]:
        for gate in suite["gates"]:
            print(report.gate_line(suite["name"], gate), file=out)
    if to_stdout:
        print(json.dumps(document, indent=1))
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
