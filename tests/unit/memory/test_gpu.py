"""Memory of GPUs, told by modules that are not torch and not NVML."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.gpu import SLOWEST, GpuReader

PID = 4321


class FakeNvml(SimpleNamespace):
    """Two devices; `processes` lists what runs on each."""

    def __init__(self, *processes: list[tuple[int, int | None]]) -> None:
        super().__init__(processes=processes, starts=0, reads=0, error=None)

    def nvmlInit(self) -> None:  # noqa: N802
        self.starts += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self.reads += 1
        if self.error is not None:
            raise self.error
        return len(self.processes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[SimpleNamespace]:  # noqa: N802
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes[device]
        ]


class FakeTorch(SimpleNamespace):
    """CUDA with these bytes on each device."""

    def __init__(self, *allocated: int, initialised: bool = True) -> None:
        cuda = SimpleNamespace(
            is_initialized=lambda: initialised,
            device_count=lambda: len(allocated),
            memory_allocated=lambda device: allocated[device],
        )
        super().__init__(cuda=cuda)


class Clock:
    """Each reading of it is `step` seconds later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture(autouse=True)
def neither(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(os, "getpid", lambda: PID)


@pytest.fixture
def install(monkeypatch):
    def install(name, module):
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def test_without_torch_and_nvml_it_is_unknown():
    assert GpuReader().read() is None


def test_torch_tells_what_its_tensors_hold_on_all_devices(install):
    install("torch", FakeTorch(100, 20))
    assert GpuReader().read() == 120


def test_torch_without_cuda_in_use_is_not_asked(install):
    install("torch", FakeTorch(100, initialised=False))
    install("pynvml", FakeNvml([(PID, 7)]))
    assert GpuReader().read() == 7


def test_torch_wins_over_the_driver(install):
    install("torch", FakeTorch(100))
    nvml = install("pynvml", FakeNvml([(PID, 7)]))
    assert GpuReader().read() == 100
    assert nvml.starts == 0


def test_torch_that_is_half_imported_is_not_asked(install):
    install("torch", SimpleNamespace())
    assert GpuReader().read() is None


def test_torch_is_not_imported_by_the_reader(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    GpuReader().read()
    assert "torch" not in sys.modules


def test_the_driver_tells_the_memory_of_this_process_on_all_devices(install):
    install("pynvml", FakeNvml([(1, 999), (PID, 7)], [(PID, 30)]))
    assert GpuReader().read() == 37


@pytest.mark.parametrize("processes", [[], [(1, 999)], [(PID, None)]])
def test_memory_that_the_driver_cannot_tell_is_unknown(install, processes):
    """No process, processes of another namespace, a device that does not count by process."""
    install("pynvml", FakeNvml(processes))
    assert GpuReader().read() is None


def test_the_driver_is_initialised_once_in_a_process(install, monkeypatch):
    nvml = install("pynvml", FakeNvml([(PID, 7)]))
    reader = GpuReader()
    assert [reader.read(), reader.read()] == [7, 7]
    assert nvml.starts == 1
    monkeypatch.setattr(os, "getpid", lambda: PID + 1)  # the child of a fork
    assert reader.read() is None
    assert nvml.starts == 2


def test_a_driver_that_fails_leaves_it_unknown_and_is_asked_again(install):
    nvml = install("pynvml", FakeNvml([(PID, 7)]))
    reader = GpuReader()
    nvml.error = RuntimeError("NVML_ERROR_GPU_IS_LOST")
    assert reader.read() is None
    nvml.error = None
    assert reader.read() == 7


def test_a_driver_that_cannot_be_initialised_leaves_it_unknown(install):
    nvml = install("pynvml", FakeNvml([(PID, 7)]))
    nvml.nvmlInit = lambda: 1 / 0
    assert GpuReader().read() is None


def test_a_reading_that_took_too_long_is_the_last_one(install):
    nvml = install("pynvml", FakeNvml([(PID, 7)]))
    reader = GpuReader(clock=Clock(SLOWEST * 1.01))
    assert reader.read() == 7
    assert reader.read() is None
    assert nvml.reads == 1


def test_a_reading_within_the_time_is_made_again(install):
    install("pynvml", FakeNvml([(PID, 7)]))
    reader = GpuReader(clock=Clock(SLOWEST * 0.99))
    assert [reader.read(), reader.read()] == [7, 7]


def test_no_mode_reads_nothing(install):
    install("torch", FakeTorch(100))
    assert GpuReader(None).read() is None


def test_another_mode_is_refused():
    with pytest.raises(ConfigError, match="gpu must be 'auto' or None, got 'torch'"):
        GpuReader("torch")
