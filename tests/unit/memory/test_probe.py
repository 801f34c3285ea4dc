"""The psutil probe on systems that are not here, by a psutil that is not psutil."""

from __future__ import annotations

import sys
from collections import namedtuple
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from memguard_native import _core
from memguard_native.memory.probe import NativeProbe, PsutilProbe, default_probe

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
