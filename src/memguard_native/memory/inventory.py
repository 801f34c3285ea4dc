"""The inventory: threads and open file descriptors by kind, from /proc.

Numbers in names of threads are left out, so that those of one pool are one row, and of a
descriptor only its kind is kept. Where there is no /proc, the threads of Python are what is known.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROC_SELF = Path("/proc/self")

# Of more descriptors only the number is told: each costs a system call (measured: 1.6 us).
_MOST_LOOKED_AT = 4096
_TOP = 20

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a process has open at one instant; None where it is not known."""

    threads: int | None = None
    """All threads, native ones included."""
    python_threads: Mapping[str, int] = field(default_factory=dict)
    """Those of Python by name, with # for every number in it."""
    descriptors: int | None = None
    """Open file descriptors."""
    kinds: Mapping[str, int] | None = None
    """Those by kind: "file", "socket", "pipe", "device", "memfd", or as the system names it."""


def _names_of_python_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def take_inventory(
    proc: Path = PROC_SELF, thread_names: Callable[[], Iterable[str]] = _names_of_python_threads
) -> Inventory:
    """What is open now."""
    links = _entries(proc / "fd")
    tasks = _entries(proc / "task")
    return Inventory(
        threads=None if tasks is None else len(tasks),
        python_threads=Counter(_DIGITS.sub("#", name) for name in thread_names()),
        descriptors=None if links is None else len(links),
        kinds=None if links is None or len(links) > _MOST_LOOKED_AT else _kinds(links),
    )


def _entries(folder: Path) -> list[str] | None:
    try:
        return [str(folder / name) for name in os.listdir(folder)]
    except OSError:
        return None


def _kinds(links: list[str]) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for link in links:
        # One that is closed meanwhile has no link, as the one that the list was read from.
        with contextlib.suppress(OSError):
            kinds[kind_of(os.readlink(link))] += 1
    return dict(kinds)


def kind_of(target: str) -> str:
    """The kind of what a descriptor leads to, by the text of its link in /proc."""
    if target.startswith("anon_inode:"):
        return target.removeprefix("anon_inode:").strip("[]")  # eventpoll, eventfd, inotify, ...
    if target.startswith("/memfd:"):
        return "memfd"
    if target.startswith("/dev/shm/"):
        return "shared memory"
    if target.startswith("/dev/"):
        return "device"
    if target.startswith("/"):
        return "file"
    return target.partition(":")[0]  # socket:[12], pipe:[12]


def compare_inventories(before: Inventory, after: Inventory) -> dict[str, Any]:
    """Threads and descriptors before and after, in a form ready for JSON."""
    kinds = None
    if before.kinds is not None and after.kinds is not None:
        kinds = _rows(before.kinds, after.kinds)
    return {
        "threads": {
            "before": before.threads,
            "after": after.threads,
            "python": _rows(before.python_threads, after.python_threads),
        },
        "file_descriptors": {
            "before": before.descriptors,
            "after": after.descriptors,
            "kinds": kinds,
        },
    }


def _rows(before: Mapping[str, int], after: Mapping[str, int]) -> list[dict[str, Any]]:
    """What grew most comes first."""
    names = sorted(
        before.keys() | after.keys(),
        key=lambda name: (before.get(name, 0) - after.get(name, 0), -after.get(name, 0), name),
    )
    return [
        {"name": name, "before": before.get(name, 0), "after": after.get(name, 0)}
        for name in names[:_TOP]
    ]
