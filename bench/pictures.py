"""Draws a report: a panel of bars per suite, on a logarithmic scale. Only this needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.report import number

OURS = "#c0392b"
THEIRS = "#7f8c8d"
YARDSTICK = "#2c3e50"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of `report` to `path`, a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [panel for suite in report["suites"] for panel in panels(suite)]
    heights = [1.0 + 0.32 * len(bars) for _, _, bars in drawn]
    figure, axes = plt.subplots(
        len(drawn),
        1,
        figsize=(9, sum(heights) + 0.6),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, label, bars) in zip(axes[:, 0], drawn, strict=True):
        _panel(axis, title, label, bars)
    stamp = report["stamp"]
    figure.supxlabel(
        f"{stamp['date'][:10]}, {stamp['cpu']}, {stamp['cores']} cores, "
        f"{stamp['python']['implementation']} {stamp['python']['version']}",
        fontsize=8,
    )
    figure.savefig(path, dpi=80, metadata={"Software": None})
    plt.close(figure)


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


def _panel(axis: Any, title: str, label: str, bars: dict[str, float]) -> None:
    names = list(bars)[::-1]
    values = [bars[name] for name in names]
    colours = [
        OURS if n.startswith("memguard") else YARDSTICK if n == "trampoline" else THEIRS
        for n in names
    ]
    axis.barh(names, values, color=colours)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 3, max(values) * 3)
    axis.set_title(title, fontsize=9, loc="left")
    better = "more" if label.endswith("/s") else "less"
    axis.set_xlabel(f"{label} (log scale, {better} is better)", fontsize=8)
    axis.xaxis.set_minor_formatter("")
    axis.tick_params(labelsize=8)
    for place, value in enumerate(values):
        axis.text(value * 1.06, place, number(value), va="center", fontsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
