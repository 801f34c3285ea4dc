"""The control group of another process: its smallest limit up the tree, and what is used of it.

For `watch`, once a minute: files are opened anew each time, and what cannot be read is not known. A
limit that is not below the memory of the host is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_BYTES_PER_KB = 1024
_NO_LIMIT = "max"


class GroupFigures(NamedTuple):
    """Of the group whose limit is the smallest one; of its own group if there is no limit."""

    limit_bytes: int | None = None
    usage_bytes: int | None = None
    private_bytes: int | None = None
    """Anonymous, shared memory and swapped out: what cannot be dropped."""


class _Files(NamedTuple):
    limit: str
    usage: str
    swap: str | None
    private: tuple[str, ...]


_V2 = _Files("memory.max", "memory.current", "memory.swap.current", ("anon", "shmem"))
_V1 = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    None,
    ("total_rss", "total_shmem", "total_swap"),
)


def group_of(proc: Path, pid: int, cgroups: Path) -> GroupFigures:
    """What is known of the group of process `pid`."""
    found = _find(proc, pid, cgroups)
    if found is None:
        return GroupFigures()
    files, top, leaf = found
    host_bytes = _host_bytes(proc)
    limits = []
    for directory in (leaf, *leaf.parents):
        limit_bytes = _number(directory / files.limit)
        if limit_bytes is not None and (host_bytes is None or limit_bytes < host_bytes):
            limits.append((limit_bytes, directory))
        if directory == top:
            break
    limit_bytes, directory = min(limits, default=(None, leaf), key=lambda found: found[0])
    return GroupFigures(
        limit_bytes, _number(directory / files.usage), _private_bytes(directory, files)
    )


def _find(proc: Path, pid: int, cgroups: Path) -> tuple[_Files, Path, Path] | None:
    """Which files, the top of the tree, and the directory of the group."""
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and (cgroups / "cgroup.controllers").exists():
            return _V2, cgroups, _inside(cgroups, path)
        if "memory" in controllers.split(",") and (cgroups / "memory").is_dir():
            return _V1, cgroups / "memory", _inside(cgroups / "memory", path)
    return None


def _inside(top: Path, path: str) -> Path:
    # "/../x": of a group that is not below the root that this process sees.
    leaf = top / path.lstrip("/")
    return leaf if ".." not in leaf.parts and leaf.is_dir() else top


def _private_bytes(directory: Path, files: _Files) -> int | None:
    stat = dict(line.split(" ", 1) for line in _text(directory / "memory.stat").splitlines())
    if files.private[0] not in stat:
        return None
    total = sum(int(stat.get(name, 0)) for name in files.private)
    return total + (_number(directory / files.swap) or 0 if files.swap is not None else 0)


def _host_bytes(proc: Path) -> int | None:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * _BYTES_PER_KB
    return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text and text != _NO_LIMIT else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
