"""Pictures: that they are drawn, 900 pixels wide, whatever there is to draw."""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
import sys

import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.alert import Alert, Forecast, Suspect
from memguard_native.memory.limits import MemoryLimit
from memguard_native.memory.picture import draw_growth
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.series import Series

MB = 2**20


def series(points: int = 420, has_malloc: bool = True) -> Series:
    found = Series()
    for minute in range(points):
        free = 3 * MB if has_malloc else None
        found.add(
            MemorySample(
                minute * 60 * 10**9, 0, anon_bytes=(100 + minute) * MB, malloc_free_bytes=free
            )
        )
    return found


def forecast(seconds: float, latest: float, limit_mb: int) -> Forecast:
    return Forecast(
        seconds=seconds,
        earliest_seconds=seconds * 0.8,
        latest_seconds=latest,
        limit_bytes=limit_mb * MB,
        limit_source="config",
    )


ALERT = Alert(
    rule="floor",
    severity="warning",
    sample=243,
    at=0.0,
    signal="live",
    window_minutes=180.0,
    rate_mb_per_hour=60.0,
    threshold_mb_per_hour=10.0,
    cause="python-objects",
)
SUSPECTS = [
    Suspect(sample=71, at=0.0, rate_mb_per_hour=60.0, cleared_sample=120),
    Suspect(sample=200, at=0.0, rate_mb_per_hour=60.0),
]
FORECASTS = {
    "none": None,
    "near": forecast(6000, 9000, 620),
    "open end": forecast(6000, math.inf, 620),
    "far": forecast(1e6, 2e6, 17_000),
    "never": forecast(math.inf, math.inf, 620),
    "now": forecast(0, 0, 400),
}


def size_of(path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.mark.parametrize("name", FORECASTS)
@pytest.mark.parametrize("has_malloc", [True, False])
def test_a_picture_is_900_pixels_wide(tmp_path, name, has_malloc):
    path = tmp_path / "x.png"
    told = FORECASTS[name]
    draw_growth(
        path,
        series(has_malloc=has_malloc),
        title="LEAK",
        subtitle="x",
        alerts=[ALERT],
        suspects=SUSPECTS,
        forecast=told,
        limit=None if told is None else MemoryLimit(told.limit_bytes, "config"),
    )
    assert size_of(path) == (900, 480)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_few_points_are_drawn(tmp_path, points):
    path = tmp_path / "x.png"
    draw_growth(path, series(points), title="TOO EARLY", limit=MemoryLimit(2**31, "host"))
    assert size_of(path) == (900, 480)


def test_what_differs_is_seen(tmp_path):
    pictures = []
    for place, (alerts, suspects, told) in enumerate(
        itertools.product(([], [ALERT]), ([], SUSPECTS), (None, FORECASTS["near"]))
    ):
        path = tmp_path / f"{place}.png"
        draw_growth(path, series(), title="x", alerts=alerts, suspects=suspects, forecast=told)
        pictures.append(path.read_bytes())
    assert len(set(pictures)) == len(pictures)


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'memguard-native\[plots\]'"):
        draw_growth(tmp_path / "x.png", series(), title="x")
    assert not (tmp_path / "x.png").exists()


def test_a_figure_of_the_program_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    draw_growth(tmp_path / "x.png", series(), title="x")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("sample", [15, 100, 300, 419])
@pytest.mark.parametrize("name", ["none", "near"])
def test_no_text_lies_on_another_or_under_an_alert(tmp_path, monkeypatch, name, sample):
    # The names of the curves were covered by what an alert near the end of the trace says.
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    alert = dataclasses.replace(ALERT, sample=sample)
    told = FORECASTS[name]
    limit = None if told is None else MemoryLimit(told.limit_bytes, "config")
    draw_growth(tmp_path / "x.png", series(), title="LEAK", subtitle="of a process", alerts=[alert],
                suspects=SUSPECTS, forecast=told, limit=limit)  # fmt: skip
    (figure,) = figures
    figure.canvas.draw()
    axes = figure.axes[0]
    texts = [*figure.texts, *axes.texts, *figure.legends[0].texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert len(boxes) == (8 if told is None else 9)
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)
    (said,) = [box for text, box in boxes if text.startswith("alert at")]
    assert not said.overlaps(axes.get_window_extent())
    assert all(box.x0 >= 0 and box.x1 <= 900 for _, box in boxes)
