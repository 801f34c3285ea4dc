"""The memory map of this process, for growth that no allocator explains: what is mapped, by name.

Reads /proc/self/smaps_rollup and /proc/self/smaps, which cost tens of milliseconds in a process of
gigabytes and hold back its page faults: for evidence, never for sampling. Libraries are told by
path, other files only by folder and suffix, because their names may be those of a user's data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from memguard_native.memory.inventory import PROC_SELF

# Of more mappings the sizes are told without what of them is in memory: smaps has 23 lines for
# each, and is made by walking all their pages.
_MOST_IN_DETAIL = 4096
_TOP = 10

_TOTALS = ("Rss", "Pss", "Anonymous", "Shared_Dirty", "Private_Dirty", "Swap")
# 7f01-7f02 rw-p 00000000 00:00 0    /path
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
_LIBRARY = re.compile(r"\.so($|\.)")


@dataclass(slots=True, kw_only=True)
class Mappings:
    """All mappings of one name."""

    count: int = 0
    virtual_bytes: int = 0
    resident_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMap:
    """What is mapped at one instant."""

    by_name: Mapping[str, Mappings] = field(default_factory=dict)
    totals_bytes: Mapping[str, int] = field(default_factory=dict)
    """The figures of smaps_rollup: rss, pss, anonymous, and so on."""
    is_resident_known: bool = True
    """Whether the resident bytes were read; not with very many mappings."""


def read_memory_map(proc: Path = PROC_SELF) -> MemoryMap:
    """What is mapped now. Raises OSError where there is no /proc."""
    lines = (proc / "maps").read_text(errors="replace").splitlines()
    in_detail = len(lines) <= _MOST_IN_DETAIL
    if in_detail:
        lines = (proc / "smaps").read_text(errors="replace").splitlines()
    return MemoryMap(
        by_name=_by_name(lines),
        totals_bytes=_totals((proc / "smaps_rollup").read_text().splitlines()),
        is_resident_known=in_detail,
    )


def _by_name(lines: Iterable[str]) -> dict[str, Mappings]:
    found: dict[str, Mappings] = {}
    current = Mappings()
    for line in lines:
        mapping = _MAPPING.match(line)
        if mapping is not None:
            start, end, permissions, path = mapping.groups()
            current = found.setdefault(_name_of(path, permissions), Mappings())
            current.count += 1
            current.virtual_bytes += int(end, 16) - int(start, 16)
        elif line.startswith("Rss:"):
            current.resident_bytes += _kilobytes(line)
    return found


def _totals(lines: Iterable[str]) -> dict[str, int]:
    found = {}
    for line in lines:
        name = line.partition(":")[0]
        if name in _TOTALS:
            found[name.lower()] = _kilobytes(line)
    return found


def _kilobytes(line: str) -> int:
    return int(line.split()[1]) * 1024


def _name_of(path: str, permissions: str) -> str:
    path = path.removesuffix(" (deleted)")
    if not path:
        shared = ", shared" if permissions.endswith("s") else ""
        return f"anonymous {permissions[:3]}{shared}"
    if path.startswith("["):
        return path  # [heap], [stack], [anon:name]
    if path.startswith("/memfd:"):
        return "memfd"
    if "x" in permissions or _LIBRARY.search(path):
        return path
    file = PurePosixPath(path)
    return str(file.parent / f"*{file.suffix}")


def compare_memory_maps(before: MemoryMap, after: MemoryMap) -> dict[str, Any]:
    """The mappings that grew most and the totals, in a form ready for JSON."""
    known = before.is_resident_known and after.is_resident_known
    rows: list[dict[str, Any]] = []
    for name, now in after.by_name.items():
        then = before.by_name.get(name, Mappings())
        resident_growth = now.resident_bytes - then.resident_bytes
        rows.append(
            {
                "name": name,
                "count": now.count,
                "count_growth": now.count - then.count,
                "virtual_growth_bytes": now.virtual_bytes - then.virtual_bytes,
                "resident_growth_bytes": resident_growth if known else None,
            }
        )
    grown = [row for row in rows if _growth(row) > 0 or row["count_growth"] > 0]
    grown.sort(key=lambda row: (_growth(row), row["count_growth"]), reverse=True)
    return {
        "mappings": grown[:_TOP],
        "totals_bytes": dict(after.totals_bytes),
        "totals_growth_bytes": {
            name: value - before.totals_bytes.get(name, 0)
            for name, value in after.totals_bytes.items()
        },
    }


def _growth(row: Mapping[str, Any]) -> int:
    resident: int | None = row["resident_growth_bytes"]
    virtual: int = row["virtual_growth_bytes"]
    return virtual if resident is None else resident
