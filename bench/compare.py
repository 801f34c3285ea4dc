"""Two reports side by side: what became faster, what slower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report import number


def compare(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Lines of text. Ratios between figures of different machines mean little: it says so."""
    for field in ("cpu", "kernel"):
        one, other = before["stamp"][field], after["stamp"][field]
        if one != other:
            yield f"note: {field} differs: {one} / {other}"
    one, other = (report["stamp"]["python"]["version"] for report in (before, after))
    if one != other:
        yield f"note: Python differs: {one} / {other}"
    old, new = _figures(before), _figures(after)
    for key in list(dict.fromkeys([*old, *new])):
        label = " ".join(key)
        if key not in new:
            yield f"{label}: {number(old[key])} -> not measured"
        elif key not in old:
            yield f"{label}: not measured -> {number(new[key])}"
        else:
            change = f"x{new[key] / old[key]:.2f}" if old[key] > 0 else "no ratio"
            yield f"{label}: {number(old[key])} -> {number(new[key])} ({change})"


def _figures(report: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    found = {}
    for suite in report["suites"]:
        # As in the tables: totals where a rival is the baseline, else what is added to it.
        totals = suite["baseline"] == suite["yardstick"]
        for case in suite["cases"]:
            for metric, figures in case["figures"].items():
                added = not totals and "added_min" in figures
                label = f"added {metric}" if added else metric
                found[suite["name"], case["name"], label] = figures["added_min" if added else "min"]
    return found
