"""Backends without a model, and a service around them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from memguard_native.embedding.loading import LoadedModel
from memguard_native.embedding.tokenize import Tokenizer

DIMENSIONS = 4
POISON = 7  # an id; [unused3] in the tiny vocabulary


class FakeBackend:
    """A vector starts with its row's sum and length. `fail(rows)` is called first and may raise."""

    dimensions = DIMENSIONS
    default_batch_tokens = 64

    def __init__(self, fail: Callable[[Sequence[np.ndarray]], None] | None = None) -> None:
        self.fail = fail
        self.batches: list[tuple[int, int]] = []
        self.prepared = 0

    def prepare(self, max_batch_tokens: int) -> None:
        self.prepared = max_batch_tokens

    def encode(self, rows: Sequence[np.ndarray], bucket: int) -> np.ndarray:
        self.batches.append((len(rows), bucket))
        if self.fail is not None:
            self.fail(rows)
        return np.array([[row.sum(), len(row), 1, 0] for row in rows], np.float32)


class GatedBackend(FakeBackend):
    """After the warm-up, each batch waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.closed = False
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def _wait(self, rows: Sequence[np.ndarray]) -> None:
        if self.closed:
            self.entered.release()
            assert self.gate.acquire(timeout=20)


def fail_on_poison(rows: Sequence[np.ndarray]) -> None:
    if any(POISON in row for row in rows):
        raise ValueError("poison")


def loaded(backend: FakeBackend, tokenizer: Tokenizer) -> Callable[[], LoadedModel]:
    return lambda: LoadedModel(tokenizer, backend)
