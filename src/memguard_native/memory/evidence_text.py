"""Evidence for people: a short text of what a report of `memory.evidence` says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from memguard_native.memory.sample import BYTES_PER_MB

_ROWS = 5


def report_text(report: Mapping[str, Any]) -> str:
    """A few lines for each section of the report; what it cost is the last one."""
    lines: list[str] = []
    for name, section in _SECTIONS.items():
        if report.get(name) is not None:
            lines += section(report[name])
    lines += [f"{failure['source']}: {failure['error']}" for failure in report["failures"]]
    cost = f"collecting this took {report['cost_ms']['total']:.1f} ms"
    if not report["complete"]:
        cost += "; it is not complete"
    return "\n".join([*lines, cost])


def _census(section: Mapping[str, Any]) -> Iterable[str]:
    if "skipped" in section:
        return [f"growing types: not counted, {section['skipped']}"]
    rows = [
        f"  {_megabytes(row['bytes_growth']):>10}  {row['count_growth']:>+10,}  {row['type']}"
        for row in section["types"][:_ROWS]
    ]
    return _titled(f"growing types, of {section['objects']:,} objects", rows)


def _profile(section: Mapping[str, Any]) -> Iterable[str]:
    if section["kind"] == "tracemalloc":
        rows = [
            f"  {_megabytes(site['growth_bytes']):>10}  {_place(site)}"
            for site in section["sites"][:_ROWS]
        ]
        return _titled("growth by line, from tracemalloc", rows)
    rows = [
        f"  {_megabytes(site['lasting_bytes']):>10}  {_place(site)}"
        for site in section["sites"][:_ROWS]
        if site["lasting_bytes"] > 0
    ]
    return _titled(
        f"allocated in the first half of {section['seconds']:.0f} s and still alive, by "
        f"{section['samples']} samples",
        rows,
    )


def _maps(section: Mapping[str, Any]) -> Iterable[str]:
    rows = []
    for row in section["mappings"][:_ROWS]:
        resident = row["resident_growth_bytes"]
        growth = row["virtual_growth_bytes"] if resident is None else resident
        rows.append(f"  {_megabytes(growth):>10}  {row['count_growth']:>+10,}  {row['name']}")
    return _titled("growing mappings", rows)


def _threads(section: Mapping[str, Any]) -> Iterable[str]:
    return _counted("threads", section, section["python"])


def _file_descriptors(section: Mapping[str, Any]) -> Iterable[str]:
    return _counted("file descriptors", section, section["kinds"] or ())


def _counted(
    title: str, section: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Iterable[str]:
    if section["after"] is None:
        return []
    grown = [
        f"{row['name']} {row['before']} -> {row['after']}"
        for row in rows
        if row["after"] > row["before"]
    ]
    text = f"{title}: {section['before']} -> {section['after']}"
    return [text + (f" ({', '.join(grown[:_ROWS])})" if grown else "")]


def _titled(title: str, rows: list[str]) -> Iterable[str]:
    return [f"{title}:", *rows] if rows else [f"{title}: none"]


def _place(site: Mapping[str, Any]) -> str:
    stack = site["stack"]
    if not stack:
        return "no Python code"
    frame = stack[0]
    return f"{frame['file']}:{frame['line']} {frame['function']}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / BYTES_PER_MB:+.1f} MB"


_SECTIONS = {
    "census": _census,
    "profile": _profile,
    "maps": _maps,
    "threads": _threads,
    "file_descriptors": _file_descriptors,
}
