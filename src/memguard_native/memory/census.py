"""The census: how many objects of which type the garbage collector tracks, and how large they are.

Two of them, some minutes apart, tell which types grow. Sizes are shallow and without the
collector's own header. Only names of types are kept, never an object; no code of the user's runs,
neither a `__sizeof__` nor a `__hash__` of a metaclass. What the collector does not track is not
seen: texts, bytes, numbers.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_OBJECTS = 1_000_000
"""A walk over more would take longer than a quarter of a second (measured: 0.2 us an object)."""

# Every tracked object is at least one block of Python's allocators, but most blocks are no such
# object. With more blocks than this not even the list of the objects is made: it takes 8 bytes
# an object, in a process that may be short of memory.
_MOST_BLOCKS = 8 * MOST_OBJECTS

_TOP = 20

# Whose size depends on what is in them; the method of the class itself, not of a subclass.
_sized_by_content: dict[type, Any] = {
    kind: kind.__sizeof__ for kind in (dict, list, set, frozenset, bytearray, deque)
}
# The getters of `type` itself: a metaclass may have attributes of these names that run code.
_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Objects by type at one instant."""

    objects: int = 0
    """How many there were in all."""
    types: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Count and bytes by name of type."""
    skipped: str | None = None
    """Why nothing was counted."""


def take_census(
    get_objects: Callable[[], list[Any]] = gc.get_objects,
    block_count: Callable[[], int] = sys.getallocatedblocks,
) -> Census:
    """Count what is tracked now; above 1,000,000 objects nothing, and say so."""
    blocks = block_count()
    if blocks > _MOST_BLOCKS:
        return Census(skipped=f"{blocks:,} blocks of memory are too many to look through")
    objects = get_objects()
    if len(objects) > MOST_OBJECTS:
        return Census(
            objects=len(objects),
            skipped=f"{len(objects):,} objects, more than {MOST_OBJECTS:,}",
        )
    return Census(objects=len(objects), types=_count(objects))


def _count(objects: list[Any]) -> dict[str, tuple[int, int]]:
    # By id of the type: a metaclass may have a __hash__ of its own. The objects keep their types.
    tallies: dict[int, _Tally] = {}
    for one in objects:
        kind = type(one)
        tally = tallies.get(id(kind))
        if tally is None:
            tally = tallies[id(kind)] = _Tally(kind)
        tally.count += 1
        tally.size_bytes += tally.size_of(one)
    found: dict[str, tuple[int, int]] = {}
    for tally in tallies.values():
        count, size_bytes = found.get(tally.name, (0, 0))  # two types may have one name
        found[tally.name] = (count + tally.count, size_bytes + tally.size_bytes)
    return found


class _Tally:
    __slots__ = ("count", "name", "size_bytes", "size_of")

    def __init__(self, kind: type) -> None:
        self.name = _name_of(kind)
        self.count = 0
        self.size_bytes = 0
        self.size_of = _size_function(kind)


def _name_of(kind: type) -> str:
    module, name = _module_of(kind), _qualname_of(kind)
    if module == "builtins" or not isinstance(module, str):
        return str(name)
    return f"{module}.{name}"


def _size_function(kind: type) -> Callable[[Any], int]:
    for base, size_of in _sized_by_content.items():
        if issubclass(kind, base):
            found: Callable[[Any], int] = size_of
            return found
    return object.__sizeof__


def growth_between(before: Census, after: Census) -> dict[str, Any]:
    """The types that grew most, in a form ready for JSON."""
    skipped = before.skipped or after.skipped
    if skipped is not None:
        return {"skipped": skipped}
    rows = []
    for name, (count, size_bytes) in after.types.items():
        old_count, old_bytes = before.types.get(name, (0, 0))
        if count > old_count or size_bytes > old_bytes:
            rows.append(
                {
                    "type": name,
                    "count": count,
                    "count_growth": count - old_count,
                    "bytes": size_bytes,
                    "bytes_growth": size_bytes - old_bytes,
                }
            )
    rows.sort(key=lambda row: (row["bytes_growth"], row["count_growth"]), reverse=True)
    return {
        "objects": after.objects,
        "objects_growth": after.objects - before.objects,
        "types": rows[:_TOP],
    }
