"""`draw_growth`: a picture of how memory went, what was said of it, and when it hits its limit.

Needs matplotlib, the extra `plots`, which is loaded by the first picture and not before. No state
of matplotlib is touched, so a program's own figures are left alone, and any thread may draw.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memguard_native.errors import ConfigError
from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.sample import BYTES_PER_MB
from memguard_native.memory.series import Series
from memguard_native.memory.wording import cause_of, rate, size, span

_INK = "#1f2933"
_FAINT = "#7b8794"
_GRID = "#e4e7eb"
_LIVE = "#1f5fbf"
_PRIVATE = "#9fb3c8"
_SUSPECT = "#f7c948"
_ALERT = "#cf1124"
_FUTURE = "#e8590c"

_CURVES = {
    "live": "live: in use",
    "private": "private: all that the system charges this process alone for",
}

# Future takes at most half of the picture, and a limit is drawn if it leaves a third to the curve:
# else the part that was measured is too small to read.
_MOST_FUTURE = 1.0
_MOST_LIMIT = 3.0
_DPI = 100


def check_picture(field: str, path: str) -> None:
    """For who draws hours later, to fail at once.

    Raises ConfigError, of `field`: matplotlib is not installed, no file can be written there.
    """
    require_matplotlib(field, path)
    folder = Path(path).parent
    if Path(path).is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(field, path, "must be a file in a folder that exists and can be written")


def require_matplotlib(field: str, value: object) -> None:
    """Raises ConfigError: it is not installed."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        allowed = "needs matplotlib: run `pip install 'memguard-native[plots]'`"
        raise ConfigError(field, value, allowed) from None


def draw_growth(
    path: str | Path,
    series: Series,
    *,
    title: str,
    subtitle: str = "",
    alerts: Sequence[Alert] = (),
    suspects: Sequence[Suspect] = (),
    forecast: Forecast | None = None,
    limit: MemoryLimit | None = None,
) -> None:
    """Write a PNG, 900 pixels wide.

    Args:
        path: where to.
        series: the curve; without a point only the titles are drawn.
        title, subtitle: above it.
        alerts, suspects: marked where they were raised; their samples count as those of `series`.
        forecast: drawn from the last point on, as a band from its earliest to its latest.
        limit: a line, if it is near enough to be seen.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require_matplotlib("picture", str(path))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.13, 0.85, 0.69))
    figure.text(0.02, 0.945, title, fontsize=13, fontweight="bold", color=_INK, va="center")
    figure.text(0.02, 0.893, subtitle, fontsize=9.5, color=_FAINT, va="center")
    _bare(axes)
    if len(series):
        _Picture(axes, series, forecast, limit).draw(alerts, suspects)
        _explain_curves(figure, axes)
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_FAINT, labelsize=9, length=0)
    axes.tick_params(axis="x", length=3)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0)


def _explain_curves(figure: Any, axes: Any) -> None:
    # Below the picture: beside its curve a name lies on whatever else is drawn there.
    shown = [line for line in axes.lines if line.get_label() in _CURVES]
    if shown:
        figure.legend(
            shown, [_CURVES[line.get_label()] for line in shown], loc="lower left",
            bbox_to_anchor=(0.068, 0.0), ncols=len(shown), frameon=False, fontsize=9,
            labelcolor=_FAINT, handlelength=1.4,
        )  # fmt: skip


class _Picture:
    """The curve and what is drawn over it; x in minutes, y in MB."""

    def __init__(
        self, axes: Any, series: Series, forecast: Forecast | None, limit: MemoryLimit | None
    ) -> None:
        self._axes = axes
        self._series = series
        self._has_live = not all(map(math.isnan, series.live_mb))
        self._level = series.live_mb if self._has_live else series.private_mb
        self._forecast = _drawable(forecast)
        self._limit = limit
        self._begin, self._end = series.minutes[0], series.minutes[-1]
        past = max(self._end - self._begin, 1.0)
        self._right = self._end + self._future(past)
        highest = max(value for value in series.private_mb)
        lowest = min(value for value in (*series.private_mb, *self._level) if value == value)
        top = self._find_top(highest)
        # Room for the texts below and above.
        height = max(top - lowest, 1.0)
        self._bottom, self._top = lowest - 0.1 * height, top + 0.17 * height

    def _future(self, past: float) -> float:
        if self._forecast is None:
            return 0.0
        farthest = self._forecast.latest_seconds / 60.0
        if not math.isfinite(farthest):
            farthest = self._forecast.seconds / 60.0
        return min(farthest * 1.05, _MOST_FUTURE * past)

    def _find_top(self, highest: float) -> float:
        top = highest
        if self._limit is not None:
            limit_mb = self._limit.bytes / BYTES_PER_MB
            if limit_mb <= _MOST_LIMIT * highest:
                top = max(top, limit_mb)
        if self._forecast is not None and top == highest:
            rising = (self._right - self._end) * self._slope(self._forecast)
            top = min(highest + rising, _MOST_LIMIT * highest)
        return top

    def draw(self, alerts: Sequence[Alert], suspects: Sequence[Suspect]) -> None:
        axes = self._axes
        axes.set_xlim(self._begin, max(self._right, self._begin + 1.0))
        axes.set_ylim(self._bottom, self._top)
        self._label_axes()
        for suspect in suspects:
            self._draw_suspect(suspect)
        self._draw_curve()
        self._draw_limit()
        if self._forecast is not None:
            self._draw_forecast(self._forecast)
        for place, alert in enumerate(alerts):
            self._draw_alert(alert, has_text=place == len(alerts) - 1)

    def _label_axes(self) -> None:
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        minutes = self._right - self._begin
        step = next((one for one in _STEPS if minutes / one <= 9), _STEPS[-1])
        if minutes / step > 9:
            step *= math.ceil(minutes / step / 9)
        self._axes.xaxis.set_major_locator(MultipleLocator(step))
        self._axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _clock(value)))
        self._axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
        self._axes.text(
            0, 1.03, "MB", transform=self._axes.transAxes, fontsize=9, color=_FAINT, ha="right"
        )

    def _draw_curve(self) -> None:
        minutes, private = self._series.minutes, self._series.private_mb
        if not self._has_live:
            self._axes.plot(minutes, private, color=_LIVE, lw=1.6, label="private")
            return
        live = self._series.live_mb
        self._axes.plot(minutes, live, color=_LIVE, lw=1.8, label="live", zorder=2.1)
        self._axes.plot(minutes, private, color=_PRIVATE, lw=1.6, label="private")

    def _draw_suspect(self, suspect: Suspect) -> None:
        begin = self._series.minute_of(suspect.sample)
        end = self._end
        if suspect.cleared_sample is not None:
            end = self._series.minute_of(suspect.cleared_sample)
        self._axes.axvspan(begin, end, color=_SUSPECT, alpha=0.16, lw=0)
        if end - begin > 0.09 * (self._right - self._begin):
            self._text(begin, 0.02, "suspect", "#946200", ha="left", va="bottom")

    def _draw_alert(self, alert: Alert, *, has_text: bool) -> None:
        minute = self._series.minute_of(alert.sample)
        self._axes.axvline(minute, color=_ALERT, lw=1.4)
        if not has_text:
            return
        is_left = minute > (self._begin + self._right) / 2
        text = f"alert at {_clock(minute)}: {cause_of(alert)}, {rate(alert.rate_mb_per_hour)}"
        # Above the picture, where no curve, limit or forecast can lie under it.
        self._text(minute, 1.02, text, _ALERT, ha="right" if is_left else "left", va="bottom")

    def _draw_limit(self) -> None:
        limit = self._limit
        if limit is None:
            return
        limit_mb = limit.bytes / BYTES_PER_MB
        text = f"limit {size(limit.bytes)} ({limit.source})"
        if limit_mb > self._top:
            self._text(self._begin, 0.985, f"{text}, far above", _INK, ha="left", va="top")
            return
        self._axes.axhline(limit_mb, color=_INK, lw=1.3, ls=(0, (6, 3)))
        self._axes.annotate(
            text, (self._begin, limit_mb), xytext=(4, 4), textcoords="offset points",
            color=_INK, fontsize=9.5, path_effects=_halo(),
        )  # fmt: skip

    def _slope(self, forecast: Forecast) -> float:
        """MB per minute."""
        room = forecast.limit_bytes / BYTES_PER_MB - self._series.private_mb[-1]
        return max(0.0, room) / max(forecast.seconds / 60.0, 1e-9)

    def _draw_forecast(self, forecast: Forecast) -> None:
        level = self._series.private_mb[-1]  # what the limit is of
        limit_mb = max(level, forecast.limit_bytes / BYTES_PER_MB)
        earliest = self._end + forecast.earliest_seconds / 60.0
        estimate = self._end + forecast.seconds / 60.0
        latest = self._end + forecast.latest_seconds / 60.0
        last = latest if math.isfinite(latest) else self._right
        last_mb = limit_mb if math.isfinite(latest) else level
        self._axes.fill(
            [self._end, earliest, last, last],
            [level, limit_mb, limit_mb, last_mb],
            color=_FUTURE, alpha=0.14, lw=0,
        )  # fmt: skip
        self._axes.plot([self._end, estimate], [level, limit_mb], color=_FUTURE, lw=1.8, ls="--")
        self._axes.axvline(self._end, color=_GRID, lw=1.0)
        if estimate <= self._right and limit_mb <= self._top:
            self._axes.plot([estimate], [limit_mb], "o", color=_FUTURE, ms=6)
        between = f"{span(forecast.earliest_seconds)} to {span(forecast.latest_seconds)}"
        text = f"limit in {span(forecast.seconds)}\n{between}"
        self._text(self._right, 0.03, text, _FUTURE, ha="right", va="bottom")

    def _text(self, minute: float, height: float, text: str, colour: str, **where: Any) -> None:
        shift = -5 if where["ha"] == "right" else 5
        self._axes.annotate(
            text,
            (minute, height),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9.5,
            linespacing=1.35,
            path_effects=_halo(),
            **where,
        )


def _halo() -> list[Any]:
    """So that a text is read where the line of an alert crosses it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white", alpha=0.8)]


_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440, 2880, 10080)


def _drawable(forecast: Forecast | None) -> Forecast | None:
    return None if forecast is None or not math.isfinite(forecast.seconds) else forecast


def _clock(minute: float) -> str:
    minutes = round(minute)
    if minutes == 0:
        return "0"
    if minutes < 60:
        return f"{minutes} min"
    if minutes % 60 == 0:
        return f"{minutes // 60} h"
    return f"{minutes // 60} h {minutes % 60:02d}"
