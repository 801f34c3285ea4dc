from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from memguard_native.memory.census import Census
from memguard_native.memory.evidence import (
    CensusSource,
    EvidenceCollector,
    InventorySource,
    MapsSource,
    ProfileSource,
)
from memguard_native.memory.inventory import Inventory
from memguard_native.memory.maps import Mappings, MemoryMap
from memguard_native.testing import ManualClock


class FakeSource:
    """Notes what is asked of it; raises what its attributes say, and takes its time."""

    def __init__(self, clock: ManualClock, seconds: float = 300.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.calls: list[str] = []
        self.cost = 0.001
        self.errors: dict[str, Exception] = {}

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.clock.advance(self.cost)
        if name in self.errors:
            raise self.errors[name]

    def begin(self) -> None:
        self._called("begin")

    def end(self) -> dict[str, Any]:
        self._called("end")
        return {"found": len(self.calls)}

    def cancel(self) -> None:
        self._called("cancel")


@pytest.fixture
def cost() -> ManualClock:
    return ManualClock()


@pytest.fixture
def source(cost: ManualClock) -> FakeSource:
    return FakeSource(cost)


@pytest.fixture
def collector(cost: ManualClock, source: FakeSource) -> EvidenceCollector:
    return EvidenceCollector({"fake": source}, {}, cost_clock=cost.now)


def test_it_does_nothing_before_it_is_armed(collector, source):
    collector.step(1e9)
    assert not collector.is_armed
    assert not collector.due(1e9)
    assert source.calls == []
    assert collector.report()["complete"] is False


def test_arming_takes_the_first_look_and_the_second_is_due_when_its_time_is_over(collector, source):
    assert collector.arm(1000.0)
    assert source.calls == ["begin"]
    assert not collector.due(1299.9)
    assert collector.due(1300.0)
    collector.step(1299.9)
    assert source.calls == ["begin"]
    collector.step(1300.0)
    assert source.calls == ["begin", "end"]
    assert not collector.is_armed
    assert not collector.due(1e9)


def test_the_report_is_complete_when_every_source_has_looked_twice(cost):
    sources = {"short": FakeSource(cost, 120.0), "long": FakeSource(cost, 300.0)}
    collector = EvidenceCollector(sources, {}, cost_clock=cost.now)
    collector.arm(0.0)
    collector.step(150.0)
    assert collector.report()["complete"] is False
    collector.step(300.0)
    report = collector.report()
    assert report["complete"] is True
    assert report["found"] == 2
    assert report["seconds"] == 300.0


def test_the_report_tells_what_each_source_has_cost(collector, source, cost):
    source.cost = 0.002
    collector.arm(0.0)
    collector.step(300.0)
    assert collector.report()["cost_ms"] == {"fake": 4.0, "total": 4.0}


def test_a_first_look_that_fails_is_told_and_has_no_second(collector, source):
    source.errors["begin"] = RuntimeError("no GIL")
    assert collector.arm(0.0)
    assert not collector.is_armed
    assert collector.report()["failures"] == [{"source": "fake", "error": "RuntimeError: no GIL"}]


def test_a_second_look_that_fails_is_told(collector, source):
    source.errors["end"] = OSError(24, "Too many open files")
    collector.arm(0.0)
    collector.step(300.0)
    [failure] = collector.report()["failures"]
    assert failure["error"] == "OSError: [Errno 24] Too many open files"
    assert collector.report()["complete"] is True


def test_a_first_look_of_more_than_a_second_has_no_second(collector, source):
    source.cost = 1.5
    collector.arm(0.0)
    assert source.calls == ["begin", "cancel"]
    assert not collector.is_armed
    [failure] = collector.report()["failures"]
    assert failure["error"] == "the first look took 1.5 s"


def test_arming_it_again_while_it_is_armed_changes_nothing(collector, source):
    collector.arm(0.0)
    assert not collector.arm(100.0)
    assert source.calls == ["begin"]
    assert collector.due(300.0)


def test_a_suspicion_that_comes_and_goes_begins_no_collection_within_the_pause(collector, source):
    collector.arm(0.0)
    collector.step(300.0)
    assert not collector.arm(3599.0)
    assert collector.report()["complete"] is True
    assert collector.arm(3600.0)
    assert source.calls == ["begin", "end", "begin"]
    assert "found" not in collector.report()


def test_what_looks_for_a_cause_begins_when_that_cause_is_named(cost, source):
    maps = FakeSource(cost)
    collector = EvidenceCollector({"fake": source}, {"mmap": {"maps": maps}}, cost_clock=cost.now)
    collector.arm(0.0)
    assert maps.calls == []
    assert collector.arm(200.0, cause="mmap")
    assert maps.calls == ["begin"]
    collector.step(300.0)
    assert source.calls == ["begin", "end"]
    assert maps.calls == ["begin"]
    collector.step(500.0)
    assert maps.calls == ["begin", "end"]


def test_it_looks_for_a_cause_once_in_a_collection_also_when_that_has_ended(cost, source):
    maps = FakeSource(cost)
    collector = EvidenceCollector({"fake": source}, {"mmap": {"maps": maps}}, cost_clock=cost.now)
    collector.arm(0.0)
    collector.step(300.0)
    assert collector.arm(400.0, cause="mmap")
    collector.step(700.0)
    assert not collector.arm(800.0, cause="mmap")
    assert maps.calls == ["begin", "end"]
    assert source.calls == ["begin", "end"]


def test_disarming_leaves_nothing_behind(collector, source):
    collector.arm(0.0)
    collector.disarm()
    assert source.calls == ["begin", "cancel"]
    assert not collector.is_armed
    report = collector.report()
    assert report["failures"] == [{"source": "fake", "error": "ended before the second look"}]
    collector.disarm()
    assert source.calls == ["begin", "cancel"]


def test_in_a_forked_child_nothing_is_cancelled_that_is_the_parents(collector, source):
    collector.arm(0.0)
    before = list(source.calls)
    collector.abandon()
    collector.disarm()
    assert source.calls == before
    assert not collector.is_armed


def test_a_report_does_not_change_when_more_is_collected(collector):
    collector.arm(0.0)
    early = collector.report()
    collector.step(300.0)
    assert early["complete"] is False
    assert early["failures"] == []
    assert early["cost_ms"]["total"] == 1.0


# --- the sources --------------------------------------------------------------------------------


def in_turn(*answers: Any) -> Callable[[], Any]:
    return iter(answers).__next__


def test_the_census_source_tells_growth():
    source = CensusSource(in_turn(Census(objects=1), Census(objects=3, types={"a": (2, 9)})))
    source.begin()
    section = source.end()["census"]
    assert (section["objects_growth"], section["types"][0]["type"]) == (2, "a")


def test_a_census_that_was_skipped_is_not_tried_again():
    source = CensusSource(in_turn(Census(skipped="too many")))
    source.begin()
    assert source.end() == {"census": {"skipped": "too many"}}


def test_the_inventory_source_tells_threads_and_descriptors():
    source = InventorySource(in_turn(Inventory(threads=1), Inventory(threads=5)))
    source.begin()
    assert source.end()["threads"] == {"before": 1, "after": 5, "python": []}


def test_the_maps_source_tells_mappings():
    after = MemoryMap(by_name={"memfd": Mappings(count=1, virtual_bytes=9, resident_bytes=9)})
    source = MapsSource(in_turn(MemoryMap(), after))
    source.begin()
    assert source.end()["maps"]["mappings"][0]["name"] == "memfd"


class FakeProfile:
    def __init__(self) -> None:
        self.calls: list[object] = []

    def start(self, seconds: float) -> None:
        self.calls.append(seconds)

    def stop(self) -> dict[str, Any]:
        self.calls.append("stop")
        return {"kind": "fake"}

    def cancel(self) -> None:
        self.calls.append("cancel")


def test_the_profile_source_starts_and_stops_a_profile():
    profile = FakeProfile()
    source = ProfileSource(lambda: profile, seconds=60.0)
    source.begin()
    assert source.end() == {"profile": {"kind": "fake"}}
    assert profile.calls == [60.0, "stop"]


def test_a_cancelled_profile_is_ended():
    profile = FakeProfile()
    source = ProfileSource(lambda: profile)
    source.cancel()
    source.begin()
    source.cancel()
    source.cancel()
    assert profile.calls == [120.0, "cancel"]


def test_the_usual_collection_is_ready_for_json_and_tells_its_cost():
    collector = EvidenceCollector()
    collector.arm(0.0, cause="mmap")
    collector.step(300.0)
    report = collector.report()
    assert json.loads(json.dumps(report)) == report
    assert report["failures"] == []
    sections = {"census", "profile", "threads", "file_descriptors", "maps"}
    assert sections <= report.keys()
    assert report["cost_ms"].keys() == {"inventory", "census", "profile", "maps", "total"}
