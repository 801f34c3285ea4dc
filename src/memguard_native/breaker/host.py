"""Scope "host": breakers whose word, windows and counters lie in a segment that processes share.

A call of such a breaker is a call of any other: it reads the word, wherever that lies. Here is what
is done off its path: finding the place by name, publishing rules and following those of others,
and telling what happened in other processes, once a second on the event thread while it runs.
"""

from __future__ import annotations

import difflib
import logging
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memguard_native import _core
from memguard_native.breaker import events
from memguard_native.breaker.config import BreakerConfig
from memguard_native.errors import ConfigError, SegmentError, SegmentUnavailableError

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker
    from memguard_native.segment import Segment

logger = logging.getLogger("memguard_native.breaker")

_LOOK_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a breaker lies."""

    segment: Segment
    index: int

    def arguments(self) -> dict[str, Any]:
        """What a `_core.Breaker` is told about it."""
        return {"segment": self.segment.core, "index": self.index}


@dataclass(eq=False, slots=True)
class _Watched:
    """The breakers of this process in one segment, by their place."""

    segment: Segment
    breakers: dict[int, weakref.WeakSet[CircuitBreaker]] = field(default_factory=dict)
    stop_listening: Callable[[], None] = lambda: None
    has_lost_its_name: bool = False
    """And there is nowhere to go: its processes share it among themselves."""

    def all(self) -> list[CircuitBreaker]:
        return [breaker for places in list(self.breakers.values()) for breaker in list(places)]


_watched: dict[str, _Watched] = {}  # by the segment's path


def place_for(config: BreakerConfig) -> Place | None:
    """Where the breaker is to lie; None: in this process's own memory.

    Where there is no segment to be had, one warning says why. Raises SegmentError.
    """
    if config.scope == "local":
        return None
    try:
        return place_of(config.name, config.namespace)
    except SegmentUnavailableError as error:
        if str(error) not in _warned:  # once, and not for each breaker
            _warned.add(str(error))
            logger.warning("circuit %r is local to this process: %s", config.name, error)
        return None


_warned: set[str] = set()


def place_of(name: str, namespace: str | None) -> Place:
    """The place of this name in the segment of the namespace; both are made where they are not.

    Raises SegmentError, SegmentUnavailableError: see `segment.attach`.
    """
    if not sys.platform.startswith("linux"):
        problem, cure = "shared memory is for Linux so far", "keep scope='local' on this system"
        raise SegmentUnavailableError("scope='host'", problem, cure)
    from memguard_native import segment as segments

    segment = segments.attach(namespace)
    with segment.locked():
        index = segment.core.claim_breaker(name)
    if index is None:
        problem = f"it holds {_core.SEGMENT_BREAKERS} breakers, which is all it can"
        cure = "put some into another namespace, or remove it with memguard doctor --clean"
        raise SegmentUnavailableError(str(segment.path), problem, cure)
    return Place(segment, index)


def place_of_published(name: str, namespace: str | None) -> tuple[Place, dict[str, Any]]:
    """The place of a breaker that others have made, and the numbers that they share of it.

    The numbers by the names of `BreakerConfig`. Neither a breaker nor a segment is made.

    Raises:
        ConfigError: there is no breaker of this name.
        SegmentError: there is no segment of this namespace, or it cannot be used, or its breaker
            has no rules.
    """
    from memguard_native import segment as segments

    there = segments.look_at(segments.path_of(segments.checked_namespace(namespace)))
    index_of(there.core, name)  # before attaching, which makes a segment where there is none
    segment = segments.attach(namespace)
    index = index_of(segment.core, name)
    rules = segment.core.rules(index)
    if rules is None:
        cure = "the next process that makes the breaker brings some"
        raise SegmentError(str(segment.path), f"the breaker {name!r} has no legal rules", cure)
    del rules["enforce_by_auto"]
    return Place(segment, index), rules


def index_of(core: _core.Segment, name: str) -> int:
    """Where the breaker lies in its segment.

    Raises ConfigError: there is none of this name.
    """
    # By the names as they are shown: one that is no UTF-8 is found, and is one error, as well.
    found = core.breaker_names()
    for index, one in found.items():
        if one == name:
            return index
    names = sorted(found.values())
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    there = ", ".join(map(repr, names)) or "none"
    raise ConfigError("name", name, f"must be one of the shared breakers; {guess}there: {there}")


def watch(breaker: CircuitBreaker, place: Place) -> None:
    """Called by each new breaker of scope "host"."""
    path = str(place.segment.path)
    watched = _watched.get(path)
    if watched is None:
        watched = _watched[path] = _Watched(place.segment)
        _listen_to(watched)
    watched.breakers.setdefault(place.index, weakref.WeakSet()).add(breaker)


def _listen_to(watched: _Watched) -> None:
    core = watched.segment.core
    watched.stop_listening = events.add_source(
        core.read_events, core.events_pushed, lambda told: _tell(watched, told)
    )


def _tell(watched: _Watched, told: tuple[Any, ...]) -> None:
    # What this process does not use, it is not told about.
    breakers = list(watched.breakers.get(told[0], ()))
    if breakers:
        events.tell_shared(breakers[0].name, [one._core.id for one in breakers], told)


_next_look = 0.0


def _look_when_due() -> float | None:
    """Called by the event thread whenever it wakes; returns the seconds until the next look."""
    global _next_look
    if not _watched:
        return None
    now = time.monotonic()
    if now >= _next_look:
        _next_look = now + _LOOK_INTERVAL
        look()
    return _next_look - now


def look() -> None:
    """Follow the rules of others, say that this process lives, move if the file was replaced."""
    for watched in list(_watched.values()):
        if not watched.has_lost_its_name and not watched.segment.has_its_name():
            _move(watched)
        watched.segment.core.beat()
        for breaker in watched.all():
            breaker._core.follow()


def _move(watched: _Watched) -> None:
    """Others share another file by now: go on there, with the state that it has."""
    from memguard_native import segment as segments

    path, moving = watched.segment.path, watched.all()
    try:
        if not _core.BREAKERS_CAN_MOVE:
            cure = "restart the processes that share it"
            raise SegmentUnavailableError(str(path), "breakers move with the GIL alone", cure)
        segment = segments.attach_again(watched.segment)
        with segment.locked():
            places = [segment.core.claim_breaker(breaker.name) for breaker in moving]
    except SegmentError as error:
        watched.has_lost_its_name = True  # told once
        logger.error("%s was replaced or removed, and its breakers stay there: %s", path, error)
        return
    logger.error("%s was replaced or removed: its breakers begin anew", path)
    watched.segment, watched.breakers = segment, {}
    watched.stop_listening()
    _listen_to(watched)
    for breaker, index in zip(moving, places, strict=True):
        if index is not None:  # else it stays where it is, alone
            breaker._rules.move(Place(segment, index))
            watched.breakers.setdefault(index, weakref.WeakSet()).add(breaker)


events.add_task(_look_when_due)
