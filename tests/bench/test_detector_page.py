"""docs/memory.md has the figures of the newest results, and the constants that are shipped."""

from __future__ import annotations

from bench.detector import page

from memguard_native.memory.floor import SCALES


def test_figures_of_the_page_are_those_of_the_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.render(text) == text, "run `python -m bench.detector.page`"


def test_page_has_each_block_once() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in ("scores", "scales", "forecasts"):
        assert text.count(f"<!-- {name}: ") == 1
        assert text.count(f"<!-- end of {name} -->") == 1


def test_every_scale_has_its_row() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if " min | " in line and " of " in line]
    assert len(rows) == len(SCALES)


def test_pictures_of_the_page_are_there() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in ("floor", "forecast"):
        assert f"../bench/results/python3.11/detector_{name}.png" in text
        picture = (page.RESULTS.parent / f"detector_{name}.png").read_bytes()
        assert int.from_bytes(picture[16:20], "big") == 900
