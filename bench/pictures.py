"""Draws a report: bars, shares, timelines, or a plane of two metrics per suite.

Only this needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import number

OURS = "#c0392b"
THEIRS = "#7f8c8d"
YARDSTICK = "#2c3e50"
# Lines of a plane and cases of shares, in their order.
_LINES = (OURS, YARDSTICK, "#e59866")
_MARKERS = ("o", "o", "s", "s")
# Moments of a timeline, in their order.
_MOMENTS = ((OURS, "x"), (YARDSTICK, "|"))
_GRID = "#ecf0f1"
# How a metric begins that is a part of a whole.
_SHARE = "share: "
# Of the height of a plane: points that are nearer share a stack of names.
_CLOSE = 0.06

_Panel = tuple[float, Callable[[Any], None]]


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of `report` to `path`, a PNG, 900 pixels wide."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [panel for suite in report["suites"] for panel in _drawable(suite)]
    heights = [height for height, _ in drawn]
    figure, axes = plt.subplots(
        len(drawn),
        1,
        figsize=(9, sum(heights) + 0.6),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (_, paint) in zip(axes[:, 0], drawn, strict=True):
        paint(axis)
    stamp = report["stamp"]
    figure.supxlabel(
        f"{stamp['date'][:10]}, {stamp['cpu']}, {stamp['cores']} cores, "
        f"{stamp['python']['implementation']} {stamp['python']['version']}",
        fontsize=8,
    )
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _drawable(suite: dict[str, Any]) -> list[_Panel]:
    """What is drawn of a suite, with the height of each: its plane, else shares or bars, and what
    its cases went through.
    """
    if suite.get("plane"):
        return [(5.0, lambda axis: _plane(axis, suite))]
    found: list[_Panel] = []
    bars = {panel[1]: panel for panel in panels(suite)}
    shares = [metric for metric in bars if metric.startswith(_SHARE)]
    if shares:
        found.append((1.2 + 0.35 * len(shares), lambda axis: _shares(axis, suite, shares)))
    for metric in suite.get("counted", ()):
        counts = _counts(suite, metric)
        found.append((1.0 + 0.32 * len(counts), partial(_bars_from_zero, suite, metric, counts)))
    for metric in () if suite.get("counted") else bars.keys() - shares:
        found.append((1.0 + 0.32 * len(bars[metric][2]), partial(_panel, panel=bars[metric])))
    found += _timelines(suite)
    return found


def panels(suite: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Title, label of the axis and bars: one panel of a timed suite, one per metric of others.

    Of several metrics those with a goal are drawn, if there are any; the tables have them all.
    """
    metrics = list(dict.fromkeys(m for case in suite["cases"] for m in case["figures"]))
    if len(metrics) > 1:
        with_goal = {gate["metric"] for gate in suite["gates"]}
        metrics = [metric for metric in metrics if metric in with_goal] or metrics
    found = []
    for metric in metrics:
        totals = suite["baseline"] is None or suite["baseline"] == suite["yardstick"]
        kind = "min" if totals else "added_min"
        bars = {
            case["name"]: case["figures"][metric][kind]
            for case in suite["cases"]
            if case["figures"].get(metric, {}).get(kind, 0.0) > 0.0
        }
        unit = {"ns": "ns per call" if totals else "ns added per call"}.get(metric, metric)
        if bars:
            found.append((suite["question"], unit, bars))
    return found


def _panel(axis: Any, panel: tuple[str, str, dict[str, float]]) -> None:
    title, label, bars = panel
    names = list(bars)[::-1]
    values = [bars[name] for name in names]
    axis.barh(names, values, color=[_colour(name) for name in names])
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 3, max(values) * 3)
    _dress(axis, title)
    better = "more" if label.endswith("/s") else "less"
    axis.set_xlabel(f"{label} (log scale, {better} is better)", fontsize=8)
    axis.xaxis.set_minor_formatter("")
    for place, value in enumerate(values):
        axis.text(value * 1.06, place, number(value), va="center", fontsize=8)


def _counts(suite: dict[str, Any], metric: str) -> dict[str, float]:
    return {
        case["name"]: case["figures"][metric]["min"]
        for case in suite["cases"]
        if metric in case["figures"]
    }


def _bars_from_zero(
    suite: dict[str, Any], metric: str, counts: dict[str, float], axis: Any
) -> None:
    names = list(counts)[::-1]
    axis.barh(names, [counts[name] for name in names], color=[_colour(name) for name in names])
    highest = max(counts.values(), default=0.0) or 1.0
    axis.set_xlim(0.0, highest * 1.15)
    _dress(axis, suite["question"])
    axis.set_xlabel(f"{metric} (less is better)", fontsize=8)
    for place, name in enumerate(names):
        text = f" {number(counts[name])}"
        axis.text(counts[name], place, text, va="center", fontsize=8, color=_colour(name))


def _timelines(suite: dict[str, Any]) -> list[_Panel]:
    """A strip for each, all of one scale."""
    lines = suite.get("timelines", {})
    values = [value for line in lines.values() for value in line["values"] if value]
    if not values:
        return []
    end = max(line["step"] * len(line["values"]) for line in lines.values())
    limits = (end, min(values) / 2, max(values) * 3)
    return [
        (1.25, partial(_timeline, name=name, line=line, limits=limits))
        for name, line in lines.items()
    ]


def _timeline(
    axis: Any, *, name: str, line: dict[str, Any], limits: tuple[float, float, float]
) -> None:
    end, lowest, highest = limits
    times = [line["step"] * (place + 0.5) for place in range(len(line["values"]))]
    values = [math.nan if value is None else value for value in line["values"]]
    axis.plot(times, values, color=_colour(name), lw=1.2)
    for (what, moments), (colour, marker) in zip(line["moments"].items(), _MOMENTS, strict=False):
        axis.plot(
            moments, [highest / 1.8] * len(moments), marker, color=colour, ms=5, lw=0,
            label=f"{what}: {len(moments)}",
        )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(lowest, highest)
    axis.set_xlim(0.0, end)
    axis.set_ylabel(line["label"], fontsize=8)
    axis.grid(color=_GRID, lw=0.8)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False, loc="upper right", ncols=2, bbox_to_anchor=(1.0, 1.4))
    _dress(axis, f"{name}, over seconds")


def _shares(axis: Any, suite: dict[str, Any], metrics: list[str]) -> None:
    """A row per share, a point per case in it."""
    for place, case in enumerate(suite["cases"]):
        rows = [row for row, metric in enumerate(metrics) if metric in case["figures"]]
        values = [case["figures"][metrics[row]]["min"] for row in rows]
        # A little apart, so that equal ones are seen.
        shift = 0.13 * (place - (len(suite["cases"]) - 1) / 2)
        axis.plot(
            values, [row + shift for row in rows], _MARKERS[place % len(_MARKERS)],
            color=_LINES[place // 2 % len(_LINES)], ms=7, label=case["name"],
            mfc="white" if place % 2 else None, clip_on=False,
        )  # fmt: skip
    axis.set_yticks(range(len(metrics)), [metric.removeprefix(_SHARE) for metric in metrics])
    axis.set_ylim(len(metrics) - 0.5, -0.5)
    axis.set_xlim(0.0, 1.0)
    axis.grid(color=_GRID, lw=0.8)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    _dress(axis, suite["question"])
    axis.set_xlabel("share (more is better)", fontsize=8)


def _plane(axis: Any, suite: dict[str, Any]) -> None:
    plane = suite["plane"]
    x, y = plane["x"], plane["y"]
    for (name, points), colour in zip(plane["curves"].items(), _LINES, strict=False):
        across, up = zip(*points, strict=True)
        axis.plot(across, up, "-o", color=colour, lw=1.8, ms=3.5, label=name)
    points = []
    for case in suite["cases"]:
        found = [case["figures"].get(metric, {}).get("min") for metric in (x, y)]
        if None not in found:
            points.append((case["name"], *found))
    _name_points(axis, points)
    # Linear up to one in four days: a logarithm knows no zero, and that is the best.
    axis.set_xscale("symlog", linthresh=0.01, linscale=0.6)
    axis.set_xlim(-0.0008, 300)
    axis.set_xticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
    axis.set_ylim(bottom=0)
    axis.set_xlabel(f"{x} (logarithmic from 0.01 on; less is better)", fontsize=8)
    axis.set_ylabel(f"{y} (less is better)", fontsize=8)
    axis.grid(color=_GRID, lw=0.8)
    axis.set_axisbelow(True)
    if plane["curves"]:
        axis.legend(fontsize=8, frameon=False, loc="upper right")
    _dress(axis, suite["question"])


def _name_points(axis: Any, points: list[tuple[str, float, float]]) -> None:
    """Points with their names; where several are of one height, the names are one above another,
    right of the last.
    """
    height = max(up for _, _, up in points)
    left = sorted(points, key=lambda point: point[2])
    while left:
        level = left[0][2]
        near = [point for point in left if point[2] <= level + _CLOSE * height]
        left = left[len(near) :]
        last = max(across for _, across, _ in near)
        for place, (name, across, up) in enumerate(sorted(near, key=lambda point: point[1])):
            ours = name.startswith("memguard")
            axis.plot([across], [up], "o", color=_colour(name), ms=9 if ours else 6, zorder=3)
            axis.annotate(
                name, (last, level), xytext=(9, 10.5 * place - 3), textcoords="offset points",
                fontsize=8, color=_colour(name), fontweight="bold" if ours else "normal",
            )  # fmt: skip


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _colour(name: str) -> str:
    return OURS if name.startswith("memguard") else YARDSTICK if name == "trampoline" else THEIRS
