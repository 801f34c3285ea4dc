"""The pictures of docs/memory.md: how a verdict comes about, drawn from recorded traces.

What is drawn is what the detector had at that minute: its own series, blocks and judgement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.detector.traces import DEVELOPMENT, Column, Trace, load
from bench.detector.verdicts import THRESHOLD_MB_PER_HOUR, WARM_UP_MINUTES, new_detector
from memguard_native.memory.detector import Detector
from memguard_native.memory.floor import BLOCKS, SCALES, Refusal, judge_floor
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.load_correction import without_load
from memguard_native.memory.picture import draw_growth
from memguard_native.memory.replay import settings_for_others
from memguard_native.memory.sample import BYTES_PER_MB
from memguard_native.memory.series import Series
from memguard_native.memory.watch import Watch

_INK = "#1f2933"
_FAINT = "#7b8794"
_PRIVATE = "#9fb3c8"
_LIVE = "#1f5fbf"
_FLOOR = "#0b7a53"
_LEAK = "#cf1124"
_WINDOW = "#f0f4f8"


@dataclass(frozen=True)
class Scene:
    """One panel: a trace, and the minute at which it is judged."""

    trace: str
    title: str
    minute: int


# The second at the minute of its alert; the first when it looks worst.
SCENES = (
    Scene("ok_staircase", "Healthy: four lazy loads of 60 MB", 239),
    Scene("leak_dict_15_gc_sawtooth", "A leak of 15 MB/h, under cyclic garbage of 40 MB", 188),
)
WINDOW_MINUTES = 180
FORECAST = "leak_async_tasks_40"
FORECAST_MINUTE = 280
LIMIT_MINUTE = 400


def draw_verdicts(path: Path) -> None:
    """A healthy trace and one that leaks, with floor, line, window and verdict."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.4), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(SCENES), 1)
    for axis, scene in zip(axes, SCENES, strict=True):
        _draw_scene(axis, scene)
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(
        lines, names, fontsize=9, frameon=False, loc="outside lower center", ncols=len(names)
    )
    figure.savefig(path, dpi=100, metadata={"Software": None})


def draw_forecast(path: Path) -> None:
    """Growth, the band of its forecast and a limit; that one is pretended, for the trace has none:
    what memory really reached two hours later.
    """
    trace = _trace(FORECAST)
    limit_mb = float(trace.private_mb[: LIMIT_MINUTE + 1].max())
    reached = int(np.argmax(trace.private_mb >= limit_mb))
    limit = MemoryLimit(round(limit_mb * BYTES_PER_MB), "config")
    watch = Watch(
        settings_for_others(
            rule="floor",
            interval=60.0,
            threshold_mb_per_hour=THRESHOLD_MB_PER_HOUR,
            warm_up=WARM_UP_MINUTES * 60.0,
            limit_bytes=limit.bytes,
        )
    )
    series = Series()
    for sample in trace.samples[: FORECAST_MINUTE + 1]:
        watch.observe(sample)
        series.add(sample)
    minutes = reached - FORECAST_MINUTE
    draw_growth(
        path,
        series,
        title="A leak of 45 MB/h, and its forecast",
        subtitle=f"The limit was really reached {minutes // 60} h {minutes % 60:02d} min later, in "
        "rows that the forecast had not seen.",
        alerts=watch.alerts,
        suspects=watch.suspects,
        forecast=watch.latest.forecast,
        limit=limit,
    )


def _draw_scene(axis: Any, scene: Scene) -> None:
    trace = _trace(scene.trace)
    detector = _detector_after(trace, scene.minute)
    judged = without_load(
        detector.series.column("live"), detector.series.column("load"), detector.per_load_mb
    )
    begin = scene.minute - WINDOW_MINUTES + 1
    minutes = np.arange(len(trace.samples))
    axis.axvspan(begin, scene.minute + 1, color=_WINDOW, lw=0)
    axis.plot(minutes, trace.private_mb, color=_PRIVATE, lw=1.3, label="private")
    axis.plot(
        np.arange(scene.minute + 1 - len(judged), scene.minute + 1), judged,
        color=_LIVE, lw=1.3, label="live, less the load",
    )  # fmt: skip
    _draw_floor(axis, judged, begin)
    text, colour = _verdict(judged)
    axis.axvline(scene.minute + 1, color=colour, lw=1.5)
    axis.annotate(
        text, (scene.minute + 1, 0.04), xycoords=("data", "axes fraction"), xytext=(7, 0),
        textcoords="offset points", color=colour, fontsize=9.5, linespacing=1.4,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )  # fmt: skip
    axis.annotate(
        f"window of {WINDOW_MINUTES} minutes, 12 blocks", (begin, 0.985),
        xycoords=("data", "axes fraction"), xytext=(5, -2), textcoords="offset points",
        color=_FAINT, fontsize=9, va="top",
    )  # fmt: skip
    axis.set_title(scene.title, fontsize=11.5, fontweight="bold", color=_INK, loc="left")
    axis.set_ylabel("MB", fontsize=9, color=_FAINT)
    axis.set_xlim(0, len(minutes))
    hours = range(0, len(minutes) + 1, 60)
    axis.set_xticks(hours, [f"{hour // 60} h" for hour in hours])
    axis.tick_params(colors=_FAINT, labelsize=9)
    axis.margins(y=0.12)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axis.spines[side].set_color(_FAINT)


def _draw_floor(axis: Any, judged: Column, begin: int) -> None:
    edges = np.linspace(0, WINDOW_MINUTES, BLOCKS + 1).round().astype(int)
    minima = np.fmin.reduceat(judged[-WINDOW_MINUTES:], edges[:-1])
    floor = np.minimum.accumulate(minima[::-1])[::-1]
    for place, (block, least) in enumerate(zip(floor, minima, strict=True)):
        span = [begin + edges[place], begin + edges[place + 1]]
        axis.plot(span, [block, block], color=_FLOOR, lw=3.2, solid_capstyle="butt",
                  label="retained floor" if place == 0 else None)  # fmt: skip
        axis.plot([sum(span) / 2], [least], "o", mfc="white", color=_FLOOR, ms=4.5,
                  label="least of a block" if place == 0 else None)  # fmt: skip
    middles = begin + (edges[:-1] + edges[1:]) / 2
    line = np.polynomial.Polynomial.fit(middles, floor, 1)
    axis.plot(middles, line(middles), color=_INK, lw=1.2, ls="--", label="line through it")


def _verdict(judged: Column) -> tuple[str, str]:
    scale = next(scale for scale in SCALES if scale.window_minutes == WINDOW_MINUTES)
    found = judge_floor(judged, scale, THRESHOLD_MB_PER_HOUR)
    if isinstance(found, Refusal):
        return f"no leak, by the rule of {found.rule}:\n{found.found:.1f} of {found.limit}", _FLOOR
    rate, low, high, *_ = found
    return f"leak: {rate:.1f} MB/h\nslopes {low:.1f} to {high:.1f}", _LEAK


def _detector_after(trace: Trace, minute: int) -> Detector:
    detector = new_detector()
    _feed(detector, trace.samples[: minute + 1])
    return detector


def _feed(detector: Detector, samples: Iterable[Any]) -> None:
    for sample in samples:
        detector.add(sample)


def _trace(name: str) -> Trace:
    return next(trace for trace in load(DEVELOPMENT) if trace.name == name)
