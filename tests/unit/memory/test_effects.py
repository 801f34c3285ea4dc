from __future__ import annotations

import gc
import logging
import os
import sys
import types
from typing import Any

import pytest

from memguard_native import _core
from memguard_native.memory.alert import Alert
from memguard_native.memory.effects import (
    ProcessEffects,
    allocator_by,
    circumstances_of,
    torch_on_gpu,
)
from memguard_native.testing import FakeProbe


def alert_of(**fields: Any) -> Alert:
    values: dict[str, Any] = {
        "rule": "floor",
        "severity": "warning",
        "sample": 7,
        "at": 0.0,
        "signal": "live",
        "window_minutes": 180.0,
        "rate_mb_per_hour": 20.0,
        "threshold_mb_per_hour": 10.0,
    }
    return Alert(**{**values, **fields})


class Cycle:
    pass


class FakeCuda:
    def __init__(self) -> None:
        self.ready = True
        self.calls: list[str] = []

    def is_initialized(self) -> bool:
        return self.ready

    def device_count(self) -> int:
        return 2

    def memory_reserved(self, device: int) -> int:
        return 100 + device

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    torch = types.ModuleType("torch")
    torch.cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch.cuda


@pytest.fixture
def effects(probe: FakeProbe) -> ProcessEffects:
    return ProcessEffects(lambda alert: None, probe=probe)


def test_the_alert_is_logged_and_told_and_replacement_is_asked_for(probe):
    calls: list[tuple[str, Alert]] = []
    effects = ProcessEffects(
        lambda alert: calls.append(("log", alert)),
        lambda alert: calls.append(("callback", alert)),
        lambda alert: calls.append(("recycle", alert)),
        probe,
    )
    alert = alert_of()
    effects.log(alert)
    effects.callback(alert)
    effects.recycle(alert)
    assert calls == [("log", alert), ("callback", alert), ("recycle", alert)]


def test_without_a_callback_nobody_is_told(effects):
    effects.callback(alert_of())


def test_without_anybody_to_ask_the_log_says_that_it_is_time(effects, caplog):
    effects.recycle(alert_of())
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "time to replace this process" in record.getMessage()


def test_collecting_frees_cycles(effects):
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            one = Cycle()
            one.itself = one
        del one
        effects.collect()
        assert not any(isinstance(one, Cycle) for one in gc.get_objects())
    finally:
        gc.enable()


def test_trimming_asks_the_allocator(effects, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(_core, "malloc_trim", lambda: calls.append(1) or False)
    effects.trim()
    assert calls == [1]


def test_an_allocator_that_cannot_be_asked_is_an_error(effects, monkeypatch):
    monkeypatch.setattr(_core, "malloc_trim", lambda: None)
    with pytest.raises(OSError, match="cannot be asked"):
        effects.trim()


def test_memory_is_that_of_the_probe(effects, probe):
    probe.private_bytes = 123
    found = effects.memory()
    assert (found.private_bytes, found.live_bytes) == (123, 123)
    assert found.gpu_bytes is None


def test_where_private_memory_is_not_known_the_resident_set_is_taken(effects, probe):
    probe.private_bytes, probe.rss_bytes = None, 77
    assert effects.memory().private_bytes == 77


def test_memory_of_the_gpu_is_what_torch_holds_on_all_devices(effects, cuda):
    assert effects.memory().gpu_bytes == 201


def test_the_cache_of_torch_is_emptied(effects, cuda):
    effects.empty_gpu_cache()
    assert cuda.calls == ["empty_cache"]


def test_torch_that_uses_no_gpu_is_left_alone(effects, cuda):
    cuda.ready = False
    effects.empty_gpu_cache()
    assert cuda.calls == []
    assert torch_on_gpu() is None
    assert effects.memory().gpu_bytes is None


def test_torch_that_is_not_imported_is_not_imported(effects, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_on_gpu() is None
    effects.empty_gpu_cache()
    assert "torch" not in sys.modules


def test_torch_that_is_being_imported_has_no_gpu_yet(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert torch_on_gpu() is None


def test_advice_is_logged_with_what_to_set(effects, caplog):
    caplog.set_level(logging.INFO)
    effects.advise(alert_of(cause="shared-memory"))
    [record] = caplog.records
    assert record.getMessage().startswith("memory advice: shared memory is not given back.")
    assert "unlink()" in record.getMessage()


def test_advice_goes_by_the_circumstances_of_this_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    gc.disable()
    try:
        found = circumstances_of(alert_of(cause="mmap", cause_text="thread stacks"))
    finally:
        gc.enable()
    assert found.cause == "mmap"
    assert "onnxruntime" in found.modules
    assert found.environment is os.environ
    assert not found.gc_enabled
    assert found.gc_frozen == gc.get_freeze_count()
    assert found.threads_grow


@pytest.mark.parametrize(
    ("preloaded", "allocator"),
    [
        ("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "jemalloc"),
        ("libmimalloc.so.2", "mimalloc"),
        ("libtcmalloc_minimal.so.4", "other"),
    ],
)
def test_a_preloaded_allocator_is_known_by_its_name(preloaded, allocator):
    assert allocator_by({"LD_PRELOAD": preloaded}) == allocator


def test_without_one_it_is_that_of_the_c_library(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    assert allocator_by({}) == "glibc"

    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown, raising=False)
    assert allocator_by({}) == "other"
