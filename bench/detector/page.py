"""Writes the tables of docs/memory.md: `python -m bench.detector.page`.

The scores come from bench/results, the scales from the package. A test compares, so that no figure
there is ever typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report
from bench.detector import tables
from bench.detector.scoring import CLASS_NAMES, DELAY_GOALS
from bench.suites.detector import OURS
from bench.suites.detector_verdicts import COVERAGE, FORECASTS, OTHERS, WIDTH
from memguard_native.memory.floor import SCALES, Scale

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "memory.md"
RESULTS = ROOT / "bench" / "results" / "python3.11" / "detector.json"

_BLOCK = re.compile(r"(<!-- (\w+): [^>]*-->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)
# Suite, case, and how the row is called.
_ROWS = (
    ("detector", "memguard, cross-validated", "**memguard**"),
    ("detector", "memguard, cross-validated, no load reported", "**memguard**, load unknown"),
    ("detector_unseen", "memguard", "**memguard**, other programs"),
    (
        "detector_unseen",
        "memguard, no load reported",
        "**memguard**, other programs, load unknown",
    ),
    ("detector_blind", "memguard", "**memguard**, blind"),
    ("detector_blind", "memguard, no load reported", "**memguard**, blind, load unknown"),
    ("detector", 'memguard, rule="window"', 'memguard, `rule="window"`'),
    ("detector", "original's formula, rss", "the original's formula"),
    ("detector", "least squares, 60 samples", "least squares, 60 minutes"),
    ("detector", "Theil-Sen + Mann-Kendall, 120", "Theil-Sen + Mann-Kendall, 120 minutes"),
    ("detector", "hourly regression, two hours", "hourly regression"),
)


def render(text: str) -> str:
    """The page with its tables as they are to be."""
    written: dict[str, Callable[[], str]] = {
        "scores": _scores,
        "scales": _scales,
        "forecasts": _forecasts,
    }
    return _BLOCK.sub(lambda found: found[1] + written[found[2]]() + found[4], text)


def main() -> None:
    """Write them."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _results() -> dict[str, dict[str, Any]]:
    """Figures by suite and case."""
    document = report.check_schema(json.loads(RESULTS.read_text(encoding="utf-8")), RESULTS.name)
    return {
        suite["name"]: {case["name"]: case["figures"] for case in suite["cases"]}
        for suite in document["suites"]
    }


def _forecasts() -> str:
    cases = _results()["detector_verdicts"]

    def value(case: str, metric: str) -> float:
        found: float = cases[case][metric]["min"]
        return found

    ours, others = (100 * value(case, COVERAGE) for case in (OURS, OTHERS))
    return (
        "Measured on the recorded leaks, with limits pretended 1 to 3 hours ahead: the interval\n"
        f"holds the true time in {ours:.0f} % of {value(OURS, FORECASTS):.0f} forecasts, and in "
        f"{others:.0f} % of {value(OTHERS, FORECASTS):.0f} on the other programs of the\n"
        f"table below. The latest time is {value(OURS, WIDTH):.1f} and {value(OTHERS, WIDTH):.1f} "
        "times the earliest, in the median.\n"
    )


def _scores() -> str:
    suites = _results()
    delays = [f"{CLASS_NAMES[least]}" for least in DELAY_GOALS]
    rows = [_row("detector", "precision", "recall", "false alerts per healthy day", *delays)]
    rows.append(_row(*["---"] * (4 + len(delays))))
    for suite, case, name in _ROWS:
        rows.append(_row(name, *_figures(suites[suite][case])))
    return "\n".join(rows) + "\n"


def _figures(figures: dict[str, Any]) -> list[str]:
    def value(metric: str) -> float | None:
        found: float | None = figures.get(metric, {}).get("min")
        return found

    per_hour = value(tables.FALSE_ALERTS) or 0.0
    delays = [value(tables.median_delay(least)) for least in DELAY_GOALS]
    return [
        report.number(value(tables.PRECISION)),
        report.number(value(tables.RECALL)),
        f"{24 * per_hour:.2g}",
        *("" if delay is None else f"{delay:.0f} min" for delay in delays),
    ]


def _scales() -> str:
    names = ("window", "from MB/h", "scatter", "bend", "minutes that agree")
    rows = [_row(*names), _row(*["---"] * len(names))]
    rows += [_row(*_cells(scale)) for scale in SCALES]
    return "\n".join(rows) + "\n"


def _cells(scale: Scale) -> list[str]:
    bend = f"{scale.bend:g}"
    if scale.upward_bend is not None:
        bend += f" ({scale.upward_bend:g} upwards)"
    wanted, newest = scale.hold
    return [
        f"{scale.window_minutes} min",
        f"{10 * scale.least_rate:g}",
        f"{scale.scatter:g}",
        bend,
        f"{wanted} of {newest}",
    ]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
