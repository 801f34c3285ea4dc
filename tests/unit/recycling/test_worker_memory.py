"""The memory of a worker: what is its own, when it is looked at exactly, and what it then asks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from memguard_native.recycling import worker_memory
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace
from memguard_native.recycling.worker_memory import WorkerMemory

MB = 2**20
INTERVAL = 10.0


class Process:
    """What the kernel and malloc would say and do, the clock, and the slot of the segment."""

    def __init__(self):
        self.now = 1000.0
        self.private_mb = 400
        self.uss_mb: int | None = 5
        self.trim_gives_mb = 0
        self.trims = 0
        self.exact_looks = 0
        self.told: list[dict[str, int]] = []
        self.forecasts: list[float | None] = []
        self.watched: list[tuple[int | None, int]] = []
        self.core = self
        self.idle: float | None = None
        self.forecast = None

    def grows(self, mb):
        self.private_mb += mb
        if self.uss_mb is not None:
            self.uss_mb += mb

    # _core
    def private_bytes(self):
        return self.private_mb * MB

    def malloc_trim(self):
        self.trims += 1
        self.grows(-self.trim_gives_mb)

    # memory.probe
    def footprint(self):
        self.exact_looks += 1
        return None if self.uss_mb is None else SimpleNamespace(uss_bytes=self.uss_mb * MB)

    # the segment's slot
    def tell_memory(self, **figures):
        self.told.append(figures)

    def tell_forecast(self, seconds):
        self.forecasts.append(seconds)

    # the watchdog
    def watch_memory(self, hard_bytes, offset_bytes):
        self.watched.append((hard_bytes, offset_bytes))


@pytest.fixture
def process(monkeypatch):
    made = Process()
    monkeypatch.setattr(worker_memory, "_core", made)
    monkeypatch.setattr(worker_memory, "memory_footprint", made.footprint)
    monkeypatch.setattr(worker_memory, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(worker_memory, "_LOOK_INTERVAL", 0.0)
    return made


class Monitor:
    """Stands for a `MemoryMonitor`."""

    def __init__(self, process, **arguments):
        self.arguments = arguments
        self.load = SimpleNamespace(idle_seconds=self.idle_seconds)
        self._process = process
        self.looks = 0

    def idle_seconds(self):
        """Each look takes a second."""
        self.looks += 1
        self._process.now += 1.0
        return self._process.idle

    def snapshot(self):
        return SimpleNamespace(forecast=self._process.forecast)


class Case:
    """A `WorkerMemory`, and what it has asked."""

    def __init__(self, process, monkeypatch, **policy):
        self.process = process
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.withdrawn: list[str] = []
        resolved = RecyclePolicy(sample_interval=INTERVAL, **policy).resolved(
            workers=1, limit_bytes=None, cgroup_limit_bytes=None
        )
        self.memory = WorkerMemory(
            ServiceSettings(app="a:b", policy=resolved, minute_s=6.0, namespace="shop"),
            WorkerPlace(number=0, generation=1),
            lambda reason, evidence: self.asked.append((str(reason), dict(evidence))),
            lambda reason: self.withdrawn.append(str(reason)),
        )
        self.memory.segment = process
        self.memory.watchdog = process
        monkeypatch.setattr(
            worker_memory, "MemoryMonitor", lambda **arguments: Monitor(process, **arguments)
        )

    async def samples(self, count):
        """So many, each followed by what it decides."""
        for _ in range(count):
            self.process.now += INTERVAL
            self.memory.on_second()
            if self.memory._deciding is not None:
                await self.memory._deciding

    def run(self, *steps):
        """From the start of the application on: numbers are samples, functions are called."""

        async def main():
            await self.memory.begin()
            for step in steps:
                if callable(step):
                    step()
                else:
                    await self.samples(step)

        asyncio.run(main())


@pytest.fixture
def case(process, monkeypatch):
    return lambda **policy: Case(process, monkeypatch, **policy)


# --- own memory -----------------------------------------------------------------------------------


def test_own_memory_at_the_start_is_what_no_other_process_shares(case):
    one = case()
    one.run()
    assert one.memory.figures() == {"own_bytes": 5 * MB, "private_bytes": 400 * MB}
    assert one.process.told == [one.memory.figures()]


def test_from_then_on_growth_of_private_memory_is_its_own(case, process):
    one = case()
    one.run(lambda: process.grows(50))
    assert one.memory.figures() == {"own_bytes": 55 * MB, "private_bytes": 450 * MB}


def test_own_memory_is_never_below_zero(case, process):
    one = case()
    one.run(lambda: process.grows(-50))
    assert one.memory.figures()["own_bytes"] == 0


def test_where_it_cannot_be_looked_at_exactly_all_private_memory_is_its_own(case, process):
    process.uss_mb = None
    one = case()
    one.run()
    assert one.memory.figures()["own_bytes"] == 400 * MB


def test_the_watchdog_counts_from_the_same_baseline(case, process):
    case(hard_memory=100 * MB).run()
    assert process.watched == [(100 * MB, 395 * MB)]


# --- the limit ------------------------------------------------------------------------------------


def test_three_samples_and_an_exact_look_ask_for_a_replacement(case, process):
    one = case(max_memory=50 * MB, trim_first=False)
    one.run(lambda: process.grows(60), 2, lambda: one.asked.append("two samples"), 1)
    evidence = {"own_bytes": 65 * MB, "after_trim_bytes": 65 * MB, "max_bytes": 50 * MB}
    assert one.asked == ["two samples", ("memory", evidence)]
    assert process.trims == 0


def test_between_two_samples_memory_is_told_and_nothing_decided(case, process):
    one = case(max_memory=50 * MB, trim_first=False, confirm_samples=1)
    seconds = [lambda: setattr(process, "now", process.now + 1.0), one.memory.on_second] * 9
    one.run(1, lambda: process.grows(60), *seconds)
    assert len(process.told) == 11
    assert process.exact_looks == 1
    assert one.asked == []


def test_an_exact_look_that_finds_less_asks_nothing_and_is_the_new_baseline(case, process):
    process.uss_mb = 60  # pages that were copied when it began, and are shared no longer
    one = case(max_memory=50 * MB)
    one.run(lambda: setattr(process, "uss_mb", 20), 3)
    assert one.asked == []
    assert one.memory.figures()["own_bytes"] == 20 * MB


def test_memory_that_a_trim_gives_back_replaces_nobody(case, process, caplog):
    process.trim_gives_mb = 40
    one = case(max_memory=50 * MB)
    with caplog.at_level("INFO", "memguard_native.recycling"):
        one.run(lambda: process.grows(60), 10)
    assert process.trims == 1
    assert one.asked == []
    assert caplog.messages == ["own memory was 65.0 MiB, and is 25.0 after collecting and trimming"]


def test_memory_that_stays_after_a_trim_replaces(case, process):
    process.trim_gives_mb = 5
    one = case(max_memory=50 * MB)
    one.run(lambda: process.grows(60), 3)
    assert process.trims == 1
    evidence = {"own_bytes": 65 * MB, "after_trim_bytes": 60 * MB, "max_bytes": 50 * MB}
    assert one.asked == [("memory", evidence)]


def test_a_trim_waits_for_a_gap_between_requests(case, process):
    one = case(max_memory=50 * MB)
    process.idle = 1.0
    one.run(lambda: process.grows(60), 3)
    assert (one.memory.monitor.looks, process.trims) == (1, 1)


def test_without_a_gap_the_trim_comes_after_a_minute(case, process):
    one = case(max_memory=50 * MB)
    process.idle = 0.0
    one.run(lambda: process.grows(60), 3)
    assert (one.memory.monitor.looks, process.trims) == (60, 1)


def test_the_wish_is_withdrawn_when_memory_is_given_back(case, process):
    one = case(max_memory=50 * MB, trim_first=False)
    one.run(lambda: process.grows(60), 3, lambda: process.grows(-60), 1)
    assert one.withdrawn == ["memory"]


def test_without_a_limit_nothing_is_decided(case, process):
    one = case()
    one.run(lambda: process.grows(10_000), 10)
    assert (one.asked, process.exact_looks) == ([], 1)


def test_nothing_is_decided_while_a_decision_is_under_way(case, process):
    one = case(max_memory=50 * MB, trim_first=False, confirm_samples=1)

    async def main():
        await one.memory.begin()
        process.grows(60)
        for _ in range(5):
            process.now += INTERVAL
            one.memory.on_second()
        await one.memory._deciding

    asyncio.run(main())
    assert len(one.asked) == 1
    assert process.exact_looks == 2


# --- what the monitor says ------------------------------------------------------------------------


def monitor_of(one):
    return one.memory.monitor.arguments


def test_the_monitor_counts_minutes_and_actions_by_the_services_minute(case):
    arguments = monitor_of(case())
    assert (arguments["interval"], arguments["minute_s"]) == (6.0, 6.0)
    assert arguments["actions"].recycle_after == 60.0
    assert arguments["namespace"] == "shop"


@pytest.mark.parametrize("on_leak", [True, False])
def test_a_leak_asks_for_a_replacement_only_if_the_policy_says_so(case, on_leak):
    assert monitor_of(case(on_leak=on_leak))["actions"].recycle is on_leak


def test_the_load_is_what_the_application_says(case):
    one = case()
    one.memory.read_load = lambda: 7.0
    assert monitor_of(one)["load"]() == 7.0


def test_a_leak_is_asked_for_with_its_rate_and_cause(case):
    one = case()
    alert = SimpleNamespace(rate_mb_per_hour=12.3456, cause="native-heap", window_minutes=180)
    monitor_of(one)["on_recycle"](alert)
    assert one.asked == [
        (
            "leak",
            {
                "rate_mb_per_hour": 12.35,
                "cause": "native-heap",
                "window_minutes": 180,
                "private_bytes": 400 * MB,
            },
        )
    ]


class Forecast:
    def __init__(self, seconds):
        self.earliest_seconds = seconds

    def to_dict(self):
        return {"earliest_seconds": self.earliest_seconds}


@pytest.mark.parametrize(
    ("horizon", "earliest", "is_asked"),
    [(3600.0, 3600.0, True), (3600.0, 3601.0, False), (None, 1.0, False)],
)
def test_a_forecast_within_the_horizon_asks_for_a_replacement(
    case, process, horizon, earliest, is_asked
):
    one = case(forecast_horizon=horizon)
    process.forecast = Forecast(earliest)
    monitor_of(one)["on_sample"](None)
    assert one.asked == [("forecast", {"earliest_seconds": earliest})] * is_asked
    assert process.forecasts == [earliest]


def test_where_nothing_is_forecast_nothing_is_asked(case, process):
    one = case()
    monitor_of(one)["on_sample"](None)
    assert one.asked == []
    assert process.forecasts == [None]
