"""The psutil probe on systems that are not here, by a psutil that is not psutil."""

from __future__ import annotations

import sys
from collections import namedtuple
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from memguard_native import _core
from memguard_native.memory.probe import (
    BlockCounter,
    MemoryFootprint,
    NativeProbe,
    PsutilProbe,
    default_probe,
    memory_footprint,
    parse_rollup,
)

Memory = namedtuple("Memory", "rss vms")
WindowsMemory = namedtuple("WindowsMemory", "rss vms private")
Heap = namedtuple("Heap", "heap_used mmap_used")


class FakePsutil(SimpleNamespace):
    """As much of psutil as the probe uses."""

    class Error(Exception):
        pass

    def __init__(self, memory: object, **more: object) -> None:
        super().__init__(memory=memory, pid=1000, made=0, **more)

    def Process(self) -> SimpleNamespace:  # noqa: N802
        self.made += 1

        def memory_info() -> object:
            if isinstance(self.memory, Exception):
                raise self.memory
            return self.memory

        return SimpleNamespace(
            pid=self.pid, oneshot=nullcontext, memory_info=memory_info, num_threads=lambda: 3
        )


@pytest.fixture
def install(monkeypatch):
    def install(fake: FakePsutil) -> PsutilProbe:
        monkeypatch.setitem(sys.modules, "psutil", fake)
        monkeypatch.setattr("os.getpid", lambda: fake.pid)
        return PsutilProbe()

    return install


def test_default_probe_is_native_where_it_can(monkeypatch):
    monkeypatch.setattr(_core, "HAS_NATIVE_PROBE", True)
    assert isinstance(default_probe(), NativeProbe)


def test_default_probe_is_psutil_elsewhere(monkeypatch):
    monkeypatch.setattr(_core, "HAS_NATIVE_PROBE", False)
    assert isinstance(default_probe(), PsutilProbe)


def test_resident_set_and_threads_are_known_everywhere(install):
    sample = install(FakePsutil(Memory(4096, 1))).sample()
    assert (sample.rss_bytes, sample.threads) == (4096, 3)
    assert sample.python_arena_bytes == _core.python_arena_bytes()
    assert sample.private_bytes is sample.malloc_in_use_bytes is None


def test_private_bytes_of_windows_are_the_private_memory(install):
    assert install(FakePsutil(WindowsMemory(4096, 1, 777))).sample().private_bytes == 777


def test_malloc_figures_are_taken_where_psutil_has_them(install):
    sample = install(FakePsutil(Memory(1, 1), heap_info=lambda: Heap(100, 20))).sample()
    assert (sample.malloc_in_use_bytes, sample.malloc_mmap_bytes) == (120, 20)
    assert sample.malloc_age_ns == 0
    assert sample.malloc_free_bytes is None


def test_malloc_figures_that_are_dear_are_carried_over(install, monkeypatch):
    cpu_ns = [0]
    calls = []

    def heap_info() -> Heap:
        calls.append(1)
        cpu_ns[0] += 300_000
        return Heap(100 * len(calls), 0)

    monkeypatch.setattr("time.thread_time_ns", lambda: cpu_ns[0])
    probe = install(FakePsutil(Memory(1, 1), heap_info=heap_info))
    samples = [probe.sample() for _ in range(11)]
    assert [sample.malloc_in_use_bytes for sample in samples] == [100] * 10 + [200]
    assert samples[9].malloc_age_ns == samples[9].monotonic_ns - samples[0].monotonic_ns
    assert samples[10].malloc_age_ns == 0


def test_malloc_that_does_not_tell_is_not_asked_again(install):
    calls = []

    def heap_info() -> Heap:
        calls.append(1)
        raise OSError("not here")

    probe = install(FakePsutil(Memory(1, 1), heap_info=heap_info))
    assert [probe.sample().malloc_in_use_bytes for _ in range(3)] == [None] * 3
    assert len(calls) == 1


@pytest.mark.parametrize("error", [FakePsutil.Error("gone"), PermissionError("no")])
def test_process_that_cannot_be_read_gives_an_empty_sample(install, error):
    sample = install(FakePsutil(error)).sample()
    assert sample.rss_bytes is None
    assert sample.monotonic_ns > 0


def test_child_of_a_fork_is_another_process(install):
    fake = FakePsutil(Memory(1, 1))
    probe = install(fake)
    probe.sample()
    probe.sample()
    assert fake.made == 1
    fake.pid = 2000
    probe.sample()
    assert fake.made == 2


# --- what needs the GIL --------------------------------------------------------------------------


class Counting:
    """Counts blocks; each call takes so much of the thread's time."""

    def __init__(self, monkeypatch, cost_ns: int) -> None:
        self.calls = 0
        self.cpu_ns = 0
        self.cost_ns = cost_ns
        self.now_ns = 0
        monkeypatch.setattr("time.thread_time_ns", lambda: self.cpu_ns)
        monkeypatch.setattr("sys.version", "3.13.0 (main)")

    def __call__(self) -> int:
        self.calls += 1
        self.cpu_ns += self.cost_ns
        return 1000 * self.calls

    def counter(self) -> BlockCounter:
        return BlockCounter(self, lambda: self.now_ns)


def test_blocks_are_those_that_the_interpreter_counts():
    expected = None if "free-threading" in sys.version else sys.getallocatedblocks()
    assert BlockCounter().read() == (expected and pytest.approx(expected, rel=0.01))


def test_blocks_are_counted_for_each_sample_while_that_is_cheap(monkeypatch):
    counting = Counting(monkeypatch, cost_ns=1000)
    counter = counting.counter()
    assert [counter.read() for _ in range(3)] == [1000, 2000, 3000]


def test_blocks_that_are_dear_to_count_are_carried_over(monkeypatch):
    counting = Counting(monkeypatch, cost_ns=300_000)
    counter = counting.counter()
    assert [counter.read() for _ in range(11)] == [1000] * 10 + [2000]


def test_blocks_that_were_counted_more_than_10_minutes_ago_are_unknown(monkeypatch):
    counting = Counting(monkeypatch, cost_ns=11_000_000)
    counter = counting.counter()
    assert counter.read() == 1000
    counting.now_ns = 600 * 10**9
    assert counter.read() == 1000
    counting.now_ns += 1
    assert counter.read() is None
    assert counting.calls == 1


def test_blocks_are_unknown_where_none_are_counted(monkeypatch):
    monkeypatch.setattr("sys.version", "3.13.0 (main)")
    assert BlockCounter(lambda: 0).read() is None


def test_blocks_are_unknown_without_the_gil(monkeypatch):
    monkeypatch.setattr("sys.version", "3.13.0 experimental free-threading build (main)")
    assert BlockCounter(lambda: 1000).read() is None


# --- load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NativeProbe, PsutilProbe, default_probe])
def test_load_is_what_the_gauge_says_and_unknown_before(kind):
    gauge = _core.LoadGauge()
    probe = kind(load=gauge)
    assert probe.sample().load is None
    gauge.set(2.5)
    assert probe.sample().load == 2.5
    assert kind().sample().load is None


# --- on demand -----------------------------------------------------------------------------------

ROLLUP = """55d0-7ffc ---p 00000000 00:00 0    [rollup]
Rss:               13000 kB
Pss:                9000 kB
Pss_Anon:           6000 kB
Private_Clean:       500 kB
Private_Dirty:      6000 kB
"""


def test_footprint_is_the_private_pages_and_a_share_of_the_others():
    assert parse_rollup(ROLLUP) == MemoryFootprint(6500 * 1024, 9000 * 1024)


@pytest.mark.parametrize("text", ["", "Rss: 1 kB\n", ROLLUP.replace("Pss: ", "Pss: x")])
def test_text_without_the_figures_is_no_footprint(text):
    assert parse_rollup(text) is None


@pytest.mark.skipif(not _core.HAS_NATIVE_PROBE, reason="there is no smaps_rollup here")
def test_footprint_of_this_process_is_what_psutil_counts():
    import psutil

    ours, theirs = memory_footprint(), psutil.Process().memory_full_info()
    assert ours.uss_bytes == pytest.approx(theirs.uss, rel=0.02)
    assert ours.pss_bytes == pytest.approx(theirs.pss, rel=0.02)


def test_footprint_elsewhere_is_psutils(install, monkeypatch):
    fake = FakePsutil(Memory(1, 1))
    install(fake)
    monkeypatch.setattr(_core, "HAS_NATIVE_PROBE", False)
    full = SimpleNamespace(memory_full_info=lambda: SimpleNamespace(uss=123))
    fake.Process = lambda: full
    assert memory_footprint() == MemoryFootprint(123, None)

    def fail() -> None:
        raise FakePsutil.Error("gone")

    full.memory_full_info = fail
    assert memory_footprint() is None
