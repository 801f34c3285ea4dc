"""What fragmentation leaves behind is given back."""

from __future__ import annotations

import ctypes
import os

import pytest

from memguard_native import _core
from memguard_native.memory.effects import allocator_by
from memguard_native.memory.probe import NativeProbe


@pytest.mark.skipif(allocator_by(os.environ) != "glibc", reason="the allocator is not glibc's")
def test_free_blocks_between_blocks_that_live_are_given_back():
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, malloc.argtypes, free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    size_bytes, count = 60_000, 1000
    blocks = [malloc(size_bytes) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size_bytes)
    for block in blocks[1::2]:
        free(block)
    probe = NativeProbe()
    before = probe.sample().private_bytes
    assert _core.malloc_trim() is True
    after = probe.sample().private_bytes
    for block in blocks[::2]:
        free(block)
    assert before is not None
    assert after is not None
    assert before - after > 0.7 * size_bytes * count / 2
