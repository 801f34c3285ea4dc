"""What every probe promises, and how far two of them may differ."""

from __future__ import annotations

import threading
import time

import pytest

from memguard_native import _core
from memguard_native.memory.probe import NativeProbe, PsutilProbe
from memguard_native.memory.sample import MemorySample
from memguard_native.testing import FakeProbe, ManualClock

PAGE = 4096
REAL = [PsutilProbe] + ([NativeProbe] if _core.HAS_NATIVE_PROBE else [])


@pytest.fixture(params=[*REAL, lambda: FakeProbe(ManualClock(1))])
def probe(request):
    return request.param()


@pytest.fixture(params=REAL)
def kind(request):
    return request.param


@pytest.fixture
def real_probe(kind):
    return kind()


def test_sample_is_a_memory_sample_with_both_times_and_the_resident_set(probe):
    sample = probe.sample()
    assert isinstance(sample, MemorySample)
    assert sample.monotonic_ns > 0
    assert sample.wall_ns > 0
    assert sample.rss_bytes > 0
    assert sample.threads >= 1


def test_every_field_is_an_int_or_unknown_and_the_load_a_float(probe):
    for name, value in probe.sample()._asdict().items():
        assert value is None or type(value) is (float if name == "load" else int), name


def test_no_probe_reads_what_needs_the_gil_or_a_driver(probe):
    sample = probe.sample()
    assert sample.python_blocks is sample.gpu_bytes is None


def test_load_and_arenas_are_known_to_every_real_probe(kind):
    gauge = _core.LoadGauge()
    gauge.set(3)
    sample = kind(load=gauge).sample()
    assert sample.load == 3.0
    assert sample.python_arena_bytes == _core.python_arena_bytes()


def test_sample_of_a_thread_is_the_sample_of_the_process(real_probe):
    found = []
    before = real_probe.sample().rss_bytes
    thread = threading.Thread(target=lambda: found.append(real_probe.sample()))
    thread.start()
    thread.join(10)
    after = real_probe.sample().rss_bytes
    # Between them: without the GIL the end of a thread may give much memory back.
    assert min(before, after) - 2**22 < found[0].rss_bytes < max(before, after) + 2**22


def test_times_are_those_of_the_system(real_probe):
    before = time.monotonic_ns(), time.time_ns()
    sample = real_probe.sample()
    assert before[0] <= sample.monotonic_ns <= time.monotonic_ns()
    assert abs(sample.wall_ns - before[1]) < 5 * 10**9
    assert sample.sample_cost_ns > 0


def test_sample_follows_what_the_process_takes(real_probe):
    before = real_probe.sample()
    block = bytearray(b"x") * (32 * 2**20)
    grown = real_probe.sample().rss_bytes - before.rss_bytes
    assert len(block) * 0.9 < grown < len(block) * 1.1


def test_samples_from_many_threads_at_once_are_whole(real_probe):
    failures = []

    def sample_often() -> None:
        for _ in range(200):
            sample = real_probe.sample()
            if not sample.rss_bytes or not sample.threads:
                failures.append(sample)

    threads = [threading.Thread(target=sample_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


@pytest.mark.skipif(not _core.HAS_NATIVE_PROBE, reason="there is no native probe on this system")
class TestNativeAgainstPsutil:
    """Within one page or 1 %."""

    def close(self, ours: int, theirs: int) -> bool:
        return abs(ours - theirs) <= max(PAGE, theirs // 100)

    def test_the_resident_set_is_the_same(self):
        native, psutil = NativeProbe(), PsutilProbe()
        for _ in range(3):  # the first ones may still bring in pages of code
            ours, theirs = native.sample().rss_bytes, psutil.sample().rss_bytes
        assert self.close(ours, theirs)
        assert self.close(_core.Probe().rss_bytes(), theirs)

    def test_anonymous_and_mapped_and_shared_make_up_the_resident_set(self):
        for _ in range(3):
            sample = NativeProbe().sample()
        parts = sample.anon_bytes + sample.file_bytes + sample.shmem_bytes
        assert self.close(parts, sample.rss_bytes)

    def test_the_threads_are_the_same(self):
        assert NativeProbe().sample().threads == PsutilProbe().sample().threads

    def test_the_swapped_out_memory_is_what_the_kernel_sums_up(self):
        with open("/proc/self/smaps_rollup") as file:
            rows = dict(line.split(":") for line in list(file)[1:])
        assert self.close(NativeProbe().sample().swap_bytes, int(rows["Swap"].split()[0]) * 1024)

    def test_the_malloc_figures_are_the_same(self):
        psutil = pytest.importorskip("psutil", "7.2", reason="older ones have no such figures")
        ours, theirs = NativeProbe().sample(), psutil.heap_info()
        assert self.close(ours.malloc_in_use_bytes, theirs.heap_used + theirs.mmap_used)
        assert self.close(ours.malloc_mmap_bytes, theirs.mmap_used)
