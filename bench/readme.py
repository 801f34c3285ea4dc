"""Copies the figures of bench/results into the README's marked blocks: `python -m bench.readme`.

A test compares the two, so that no figure there is ever typed. Ratios are of minima of one
interleaved run; a goal that was missed is named as missed. Of several Pythons' results it takes
those of the oldest that we support; the others lie beside them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench import report

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results" / "python3.11"
GROUPS = ("breaker", "ring", "sampler", "shared", "embedding")

OURS = "memguard"
PEERS = (
    "functools.partial",
    "circuitbreaker",
    "pybreaker",
    "aiobreaker",
    "purgatory",
    "interlock-cb",
)
# Suite, figure, and how the row is called.
ROWS = (
    ("call", "added_min", "`f()`"),
    ("arguments", "added_min", "`g(1, b=2)`"),
    ("method", "added_min", "`obj.method()`"),
    ("coroutine", "added_min", "`await f()`"),
    ("rejection", "min", "a rejected call, in all"),
)
# Columns of the table of servers, each with the metric that it shows.
COLUMNS = {
    "replaced workers": "recycles",
    "failed requests of each": "failed requests per recycle",
    "extra connects": "extra connects",
    "s below full capacity": "s below full capacity",
    "longest silence, s": "longest silence, s",
    "p99, ms": "p99 ms",
    "longest, ms": "max ms",
}
_BLOCK = re.compile(
    r"(<!-- ((?:recycling )?figures): [^>]*-->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL
)


def render() -> str:
    """The README's tables, from the newest full results of each group."""
    reports = {group: _load(group) for group in GROUPS}
    parts = [
        "What a guard adds to a call that does nothing, as a multiple of ours "
        f"({_stamp(reports['breaker'])}):",
        _breaker_table(reports["breaker"]),
        "Everything that has a goal, in the same runs:",
        _goal_table(reports),
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


def render_recycling() -> str:
    """What becomes of requests while servers replace workers, and the goals of that."""
    results = _load("recycle")
    parts = [
        f"The same app, load and limit on every server ({_stamp(results)}):",
        _server_table(results),
        "Everything that has a goal, in the same runs:",
        _goal_table({"recycle": results}),
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


# What fills the block of each name.
BLOCKS = {"figures": render, "recycling figures": render_recycling}


def figures_in(text: str, name: str = "figures") -> str:
    """The block of the README that has this name."""
    for found in _BLOCK.finditer(text):
        if found[2] == name:
            return found[3]
    raise ValueError(f"README.md has no block of {name}")


def main() -> None:
    """Write the figures into the README."""
    text = README.read_text()
    figures_in(text)
    README.write_text(_BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[4], text))


def _load(group: str) -> dict[str, Any]:
    name = f"{group}.json"
    return report.check_schema(json.loads((RESULTS / name).read_text()), name)


def _stamp(results: dict[str, Any]) -> str:
    stamp = results["stamp"]
    python = f"CPython {stamp['python']['version']}"
    return f"{stamp['date'][:10]}, {stamp['cpu']}, {stamp['cores']} cores, {python}"


def _breaker_table(results: dict[str, Any]) -> str:
    suites = {suite["name"]: suite for suite in results["suites"]}
    lines = [_row("", "ours", *PEERS), _row(*["---"] * (len(PEERS) + 2))]
    for name, figure, title in ROWS:
        cases = {case["name"]: case for case in suites[name]["cases"]}
        ours = cases[OURS]["figures"]["ns"][figure]
        multiples = [_multiple(cases.get(peer), figure, ours) for peer in PEERS]
        lines.append(_row(title, f"1 ({ours:.3g} ns)", *multiples))
    return "\n".join(lines)


def _multiple(case: dict[str, Any] | None, figure: str, ours: float) -> str:
    if case is None or not case["figures"]:
        return "-"
    return f"{case['figures']['ns'][figure] / ours:.3g}"


def _server_table(results: dict[str, Any]) -> str:
    (suite,) = [suite for suite in results["suites"] if suite["name"] == "recycle"]
    lines = [_row("server", *COLUMNS), _row(*["---"] * (len(COLUMNS) + 1))]
    for case in suite["cases"]:
        found = [case["figures"].get(metric, {}).get("min") for metric in COLUMNS.values()]
        cells = [report.number(value) if value is not None else "-" for value in found]
        name = f"{case['name']} ({case['absent']})" if case["absent"] else case["name"]
        lines.append(_row(f"**{name}**" if name.startswith(OURS) else name, *cells))
    return "\n".join(lines)


def _goal_table(reports: dict[str, dict[str, Any]]) -> str:
    lines = [_row("suite", "what", "goal", "measured", "met"), _row(*["---"] * 5)]
    for group in reports.values():
        for suite in group["suites"]:
            for gate in suite["gates"]:
                met = "yes" if gate["met"] else "**missed**"
                measured = report.ratio(gate["value"], gate["limit"])
                lines.append(
                    _row(suite["name"], report.subject(gate), gate["limit"], measured, met)
                )
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
