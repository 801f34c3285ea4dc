"""The suites of the group "sampler": what they measure, and how they judge."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from bench.harness import Bench, Effort
from bench.suites import sampler, sampler_chunks, sampler_large, sampler_share

from bench import native, report, sampled_process, suites

TINY = Effort(rounds=5, seconds=0.5, quick=True)


def met(b: Bench) -> list[bool]:
    return [report.gate_report(budget, [b])["met"] for budget in b.budgets]


def test_group_has_a_suite_per_question() -> None:
    assert [suite.name for suite in suites.select(["sampler"])] == [
        "sampler",
        "sampler_large",
        "sampler_chunks",
        "sampler_share",
        "monitored_server",
    ]


@pytest.mark.parametrize(
    ("statm_ns", "cheap_ns", "verdicts"),
    [(1240.0, 8400.0, [True, True]), (1260.0, 8600.0, [False, False])],
)
def test_readings_are_judged_by_psutils(
    statm_ns: float, cheap_ns: float, verdicts: list[bool]
) -> None:
    b = Bench(TINY)
    sampler.suite(b)
    b.run()
    assert all(b.summary(name) for name in b.cases)
    b.samples["ns"] = {
        "empty loop": [0.0],
        "memguard, statm": [statm_ns],
        "memguard, cheap set": [cheap_ns],
        "psutil memory_info": [10_000.0],
    }
    assert met(b) == verdicts


# --- large processes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("large_ns", "is_met"), [(119.0, True), (121.0, False)])
def test_large_process_is_judged_by_the_small_one(
    monkeypatch: pytest.MonkeyPatch, large_ns: float, is_met: bool
) -> None:
    @contextlib.contextmanager
    def running(mappings: int, size: int) -> Iterator[object]:
        class Process:
            def nanoseconds(self, what: str, passes: int) -> float:
                return large_ns if mappings else 100.0

        yield Process()

    monkeypatch.setattr(sampled_process, "running", running)
    b = Bench(TINY)
    sampler_large.suite(b)
    assert met(b) == [is_met]
    assert all(b.summary(name, metric=sampler_large.METRIC) for name in b.cases)


def test_process_has_the_mappings_and_the_bytes_that_were_asked_for() -> None:
    with sampled_process.running(0, 0) as small, sampled_process.running(1000, 2**25) as large:
        sizes = []
        for process in (small, large):
            looked_at = psutil.Process(process.pid)
            sizes.append((len(looked_at.memory_maps(grouped=False)), looked_at.memory_info().rss))
            for what in sampled_process.LOOKS:
                assert process.nanoseconds(what, 1) > 0.0
        (few, little), (many, much) = sizes
        assert many - few == pytest.approx(1000, abs=60)
        assert much - little == pytest.approx(2**25, rel=0.1)
    assert not psutil.pid_exists(large.pid)


def test_process_that_ended_is_an_error() -> None:
    with sampled_process.running(0, 0) as process:
        psutil.Process(process.pid).kill()
        with pytest.raises(sampled_process.SampledProcessError, match="ended with -9"):
            process.nanoseconds("cheap", 1)


# --- chunks, share ------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean_us", "is_met"), [(99.0, True), (101.0, False)])
def test_free_chunks_are_judged_by_the_mean_of_a_day(
    monkeypatch: pytest.MonkeyPatch, mean_us: float, is_met: bool
) -> None:
    monkeypatch.setattr(native, "compiled", contextlib.nullcontext)
    monkeypatch.setattr(native, "numbers", lambda *_: [20_000.0, mean_us, 900.0])
    b = Bench(TINY)
    sampler_chunks.suite(b)
    assert met(b) == [is_met]


def test_free_chunks_make_the_first_sample_dear_and_not_the_others() -> None:
    with native.compiled("free_chunks") as program:
        few_us, _, _ = native.numbers(program, 0, 100)
        first_us, mean_us, _ = native.numbers(program, 1_000_000, 1440)
    assert first_us > 2000 > few_us
    assert mean_us < first_us / 20


@pytest.mark.parametrize(("microseconds", "is_met"), [(59_000.0, True), (61_000.0, False)])
def test_share_is_the_cost_of_a_sample_a_minute(
    monkeypatch: pytest.MonkeyPatch, microseconds: float, is_met: bool
) -> None:
    monkeypatch.setattr(sampler_share, "seconds_per_sample", lambda *_: microseconds / 1e6)
    b = Bench(TINY)
    sampler_share.suite(b)
    assert met(b) == [is_met]
    assert "memguard-memory" not in [thread.name for thread in threading.enumerate()]


def test_both_threads_of_a_monitor_are_timed() -> None:
    monitor = sampler_share.MemoryMonitor(0.001, threshold_mb_per_hour=1e9)
    monitor.start()
    try:
        while not monitor.snapshot().sample_count:  # by then the native thread has its name
            time.sleep(0.001)
        assert 1e-6 < sampler_share.seconds_per_sample(monitor, 0.5) < 0.05
    finally:
        monitor.stop()
    with pytest.raises(RuntimeError, match="0 threads of a monitor, not 2"):
        sampler_share.processor_seconds()
