from __future__ import annotations

import pytest

from memguard_native.memory.advice import Advice, Circumstances, advise

CAUSES = ("python-objects", "native-heap", "fragmentation", "mmap", "shared-memory", "unknown")


def settings(cause: str, **circumstances: object) -> str:
    found = advise(Circumstances(cause=cause, **circumstances))
    return "\n".join(advice.setting for advice in found)


def modules(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_arenas_are_named_where_memory_is_fragmented():
    assert "MALLOC_ARENA_MAX=2" in settings("fragmentation")


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}],
)
def test_what_is_set_already_is_not_advised(environment):
    assert "MALLOC_ARENA_MAX" not in settings("fragmentation", environment=environment)


def test_the_threshold_of_mmap_is_named_where_memory_is_fragmented():
    assert "MALLOC_MMAP_THRESHOLD_=131072" in settings("fragmentation")
    assert "M_MMAP_THRESHOLD" in settings("fragmentation")


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_a_threshold_that_is_set_already_is_not_advised(environment):
    assert "MMAP_THRESHOLD" not in settings("fragmentation", environment=environment)


def test_jemalloc_is_named_where_memory_is_fragmented():
    assert "LD_PRELOAD=libjemalloc.so.2" in settings("fragmentation")


@pytest.mark.parametrize("allocator", ["jemalloc", "mimalloc", "other"])
def test_settings_of_glibc_are_for_glibc_only(allocator):
    found = settings("fragmentation", allocator=allocator)
    assert not any(word in found for word in ("MALLOC_", "LD_PRELOAD"))


def test_survivors_are_named_where_memory_is_fragmented_whatever_the_allocator():
    assert "before the first request" in settings("fragmentation", allocator="jemalloc")


@pytest.mark.parametrize("cause", ["native-heap", "fragmentation", "mmap", "unknown"])
def test_onnxruntime_is_named_if_it_is_loaded(cause):
    assert "onnxruntime" not in settings(cause)
    found = settings(cause, modules=modules("onnxruntime"))
    assert "enable_cpu_mem_arena = False" in found
    assert "enable_mem_pattern = False" in found


@pytest.mark.parametrize("module", ["torch", "tensorflow"])
def test_the_cache_of_onednn_is_named_if_what_has_it_is_loaded(module):
    assert "ONEDNN" not in settings("native-heap")
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY=64" in settings("native-heap", modules=modules(module))


def test_a_cache_of_onednn_that_is_limited_already_is_not_named():
    environment = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}
    found = settings("native-heap", modules=modules("torch"), environment=environment)
    assert "ONEDNN" not in found


@pytest.mark.parametrize("cause", ["python-objects", "shared-memory"])
def test_libraries_are_not_blamed_for_objects_and_shared_memory(cause):
    found = settings(cause, modules=modules("onnxruntime", "torch"))
    assert "onnxruntime" not in found
    assert "ONEDNN" not in found


@pytest.mark.parametrize("cause", ["python-objects", "unknown"])
def test_a_collector_that_is_off_is_named(cause):
    assert "gc.enable()" in settings(cause, gc_enabled=False)
    assert "gc.enable()" not in settings(cause)
    assert "gc.enable()" not in settings("mmap", gc_enabled=False)


@pytest.mark.parametrize("cause", ["python-objects", "unknown"])
def test_frozen_objects_are_named(cause):
    assert "gc.unfreeze()" in settings(cause, gc_frozen=5)
    assert "gc.unfreeze()" not in settings(cause)
    assert "gc.unfreeze()" not in settings("native-heap", gc_frozen=5)


def test_stacks_of_threads_are_named_if_threads_grow():
    found = settings("mmap", threads_grow=True)
    assert "threading.stack_size" in found
    assert "mmap.close()" not in found


def test_mappings_that_are_never_closed_are_named_if_threads_do_not_grow():
    assert "mmap.close()" in settings("mmap")
    assert "threading.stack_size" not in settings("mmap")


def test_shared_memory_that_is_never_unlinked_is_named():
    assert "unlink()" in settings("shared-memory")


@pytest.mark.parametrize("cause", ["python-objects", "native-heap", "unknown"])
def test_where_nothing_is_known_nothing_is_advised(cause):
    assert advise(Circumstances(cause=cause)) == []


@pytest.mark.parametrize("cause", CAUSES)
def test_every_advice_has_a_title_a_text_and_a_setting(cause):
    everything = modules("onnxruntime", "torch")
    for advice in advise(Circumstances(cause=cause, modules=everything, gc_enabled=False)):
        assert all(advice.to_dict().values())


def test_advice_is_ready_for_json():
    advice = Advice(title="a", text="b", setting="c")
    assert advice.to_dict() == {"title": "a", "text": "b", "setting": "c"}
