"""Evidence: what a process under suspicion looks like before and after some minutes.

An `EvidenceCollector` is armed when memory is suspect, looks twice by each of its sources, and
reports what changed and what the looking has cost. While it is not armed it costs nothing. It has
no thread and no clock: who owns it calls `due(now)` and `step(now)`, all on one thread. Nothing of
it raises: what fails is in the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from memguard_native.memory.allocation_profile import AllocationProfile, best_profile
from memguard_native.memory.census import Census, growth_between, take_census
from memguard_native.memory.inventory import Inventory, compare_inventories, take_inventory
from memguard_native.memory.maps import MemoryMap, compare_memory_maps, read_memory_map

SCHEMA = 1

COLLECTION_SECONDS = 300.0
"""Between the two looks: in this time the least growth that matters, 10 MB/hour, is 0.8 MB."""
PROFILE_SECONDS = 120.0
"""The profile slows allocations down, so it ends earlier."""
PAUSE_SECONDS = 3600.0
"""A suspicion that comes and goes arms no collection more often than this."""

# A look that took longer holds up the thread that judges, or the GIL: there is no second one.
_MOST_SECONDS_OF_A_LOOK = 1.0


class EvidenceSource(Protocol):
    """Looks twice; between the two looks at least `seconds` pass."""

    seconds: float

    def begin(self) -> None:
        """The first look."""

    def end(self) -> Mapping[str, Any]:
        """The second one: what to report, by section. Ready for JSON."""
        ...

    def cancel(self) -> None:
        """There will be no second look."""


class CensusSource:
    """Types that grow."""

    def __init__(
        self, take: Callable[[], Census] = take_census, seconds: float = COLLECTION_SECONDS
    ) -> None:
        self.seconds = seconds
        self._take = take
        self._before = Census()

    def begin(self) -> None:
        self._before = self._take()

    def end(self) -> Mapping[str, Any]:
        before, self._before = self._before, Census()
        # Once too many, always too many: the second look would be as dear for as little.
        after = before if before.skipped is not None else self._take()
        return {"census": growth_between(before, after)}

    def cancel(self) -> None:
        self._before = Census()


class ProfileSource:
    """Code whose allocations stay alive."""

    def __init__(
        self,
        choose: Callable[[], AllocationProfile] = best_profile,
        seconds: float = PROFILE_SECONDS,
    ) -> None:
        self.seconds = seconds
        self._choose = choose
        self._profile: AllocationProfile | None = None

    def begin(self) -> None:
        profile = self._choose()
        profile.start(self.seconds)
        self._profile = profile

    def end(self) -> Mapping[str, Any]:
        profile, self._profile = self._profile, None
        assert profile is not None  # begun, or there is no end
        return {"profile": profile.stop()}

    def cancel(self) -> None:
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.cancel()


class InventorySource:
    """Threads and file descriptors."""

    def __init__(
        self, take: Callable[[], Inventory] = take_inventory, seconds: float = COLLECTION_SECONDS
    ) -> None:
        self.seconds = seconds
        self._take = take
        self._before = Inventory()

    def begin(self) -> None:
        self._before = self._take()

    def end(self) -> Mapping[str, Any]:
        return compare_inventories(self._before, self._take())

    def cancel(self) -> None:
        pass


class MapsSource:
    """Mappings that grow."""

    def __init__(
        self, read: Callable[[], MemoryMap] = read_memory_map, seconds: float = COLLECTION_SECONDS
    ) -> None:
        self.seconds = seconds
        self._read = read
        self._before = MemoryMap()

    def begin(self) -> None:
        self._before = self._read()

    def end(self) -> Mapping[str, Any]:
        before, self._before = self._before, MemoryMap()
        return {"maps": compare_memory_maps(before, self._read())}

    def cancel(self) -> None:
        self._before = MemoryMap()


class EvidenceCollector:
    """Looks at this process by its sources, twice each, on the thread that calls.

    Args:
        sources: what looks, by name; default: "inventory", "census" and "profile".
        sources_by_cause: what looks besides if growth has this cause; default: "maps" for "mmap".
        pause: seconds from the start of a collection in which no other one begins; default 3600.
        cost_clock: tells the seconds that looks take; default `time.perf_counter`.
    """

    def __init__(
        self,
        sources: Mapping[str, EvidenceSource] | None = None,
        sources_by_cause: Mapping[str, Mapping[str, EvidenceSource]] | None = None,
        *,
        pause: float = PAUSE_SECONDS,
        cost_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if sources is None:
            sources = {
                "inventory": InventorySource(),
                "census": CensusSource(),
                "profile": ProfileSource(),
            }
        if sources_by_cause is None:
            sources_by_cause = {"mmap": {"maps": MapsSource()}}
        self._sources = sources
        self._sources_by_cause = sources_by_cause
        self._pause = pause
        self._cost_clock = cost_clock
        self._armed_at: float | None = None
        self._stepped_at = 0.0
        self._begun: dict[str, tuple[EvidenceSource, float]] = {}
        self._seen: set[str] = set()
        self._sections: dict[str, Any] = {}
        self._failures: list[dict[str, str]] = []
        self._cost: dict[str, float] = {}

    @property
    def is_armed(self) -> bool:
        """Whether some source has still to look a second time."""
        return bool(self._begun)

    def arm(self, now: float, cause: str = "unknown") -> bool:
        """Take the first looks; whether there was one to take.

        `now` is in seconds of whatever clock `due()` and `step()` are asked by. Until `pause` is
        over the collection that there is goes on, or stays; then only what looks for this cause
        begins, if it has not looked in this collection yet.
        """
        looked = len(self._seen)
        if not self.is_armed and (self._armed_at is None or now - self._armed_at >= self._pause):
            looked = 0
            self._armed_at = now
            self._seen, self._sections, self._failures, self._cost = set(), {}, [], {}
            self._begin(self._sources, now)
        self._begin(self._sources_by_cause.get(cause, {}), now)
        self._stepped_at = now
        return len(self._seen) > looked

    def due(self, now: float) -> bool:
        """Whether `step()` has something to do."""
        return any(now >= end for _, end in self._begun.values())

    def step(self, now: float) -> None:
        """Take the second looks that are due."""
        for name, (source, end) in tuple(self._begun.items()):
            if now >= end:
                del self._begun[name]
                found = self._measured(name, source.end)
                if found is not None:
                    self._sections.update(found)
        self._stepped_at = now

    def disarm(self) -> None:
        """End the collection at once: no second looks, and nothing stays behind in the process."""
        for name, (source, _) in tuple(self._begun.items()):
            del self._begun[name]
            self._failures.append({"source": name, "error": "ended before the second look"})
            self._measured(name, source.cancel)

    def abandon(self) -> None:
        """In a forked child: forget a collection of the parent's. What it began in the process is
        the parent's to end, and a cancel would end what the child has begun."""
        self._begun.clear()

    def report(self) -> dict[str, Any]:
        """What is known so far, ready for JSON; "complete" tells whether more is to come."""
        if self._armed_at is None:
            return {"schema": SCHEMA, "complete": False, "failures": [], "cost_ms": {"total": 0.0}}
        cost_ms = {name: round(cost * 1000.0, 3) for name, cost in self._cost.items()}
        return {
            "schema": SCHEMA,
            "complete": not self.is_armed,
            "seconds": self._stepped_at - self._armed_at,
            **self._sections,
            "failures": [dict(failure) for failure in self._failures],
            "cost_ms": {**cost_ms, "total": round(sum(self._cost.values()) * 1000.0, 3)},
        }

    def _begin(self, sources: Mapping[str, EvidenceSource], now: float) -> None:
        for name, source in sources.items():
            if name in self._seen:
                continue
            self._seen.add(name)
            before = len(self._failures)
            self._measured(name, source.begin)
            if len(self._failures) > before:
                continue
            if self._cost[name] > _MOST_SECONDS_OF_A_LOOK:
                self._failures.append(
                    {"source": name, "error": f"the first look took {self._cost[name]:.1f} s"}
                )
                self._measured(name, source.cancel)
                continue
            self._begun[name] = (source, now + source.seconds)

    def _measured(self, name: str, look: Callable[[], Any]) -> Any:
        start = self._cost_clock()
        try:
            return look()
        except Exception as error:  # noqa: BLE001 - evidence must not end the thread that judges
            self._failures.append({"source": name, "error": f"{type(error).__name__}: {error}"})
            return None
        finally:
            self._cost[name] = self._cost.get(name, 0.0) + self._cost_clock() - start
