"""docs/corners.md, from a dictionary of answers: probe -> library -> what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.corners.probes import PROBES, title

INTRO = """\
# What breakers do in the corners

A row is a question, a column what a library did when it was asked: each breaker was built as its
own documentation does, used through its decorator unless the row says otherwise, and really driven
into the corner, in a process of its own. Each opens after so many failures in a row (interlock-cb,
which knows rates: when all of the last so many failed), for 0.2 seconds where they are waited for,
and one success closes it. "Probe" is the call that tries after the timeout whether the dependency
is back; "neutral" is a verdict that is neither failure nor success; "n/a" tells why the corner
cannot be reached. This page is written by `python -m bench.corners`, and none of it by hand.
"""


def page(
    answers: Mapping[str, Mapping[str, str]], versions: Mapping[str, str | None], date: str
) -> str:
    """The page; `versions` is in the order of the columns, with the interpreter's last."""
    libraries = list(dict.fromkeys(library for row in answers.values() for library in row))
    rows = [["probe", *libraries]]
    for probe, row in answers.items():
        rows.append([title(PROBES[probe]), *(row.get(library, "") for library in libraries)])
    told = ", ".join(f"{name} {number or 'not installed'}" for name, number in versions.items())
    return "\n".join([INTRO, *_grid(rows), "", f"{date}: {told}.", ""])


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
