"""The backend behind its breaker: what counts as its failure, and what only as a bad input's.

A batch that fails is judged by the warm-up text. If that fails as well, the backend is sick: the
breaker counts it and the whole batch fails. If it passes, some input is poison: the batch is halved
down to single inputs, each input that fails alone gets its own error, the others their vectors, and
the breaker sees a success. So no client can open the breaker with bad input. Vectors that are not
finite are a failure, and so is a batch that took longer than `batch_timeout`.

Called by the inference thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from memguard_native.embedding.errors import BackendError, BatchTimeoutError

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker
    from memguard_native.embedding.backends import Backend, TokenIds, Vectors


class GuardedBackend:
    """`backend` behind `breaker`. `probe`: ids that a backend in good health can compute."""

    def __init__(
        self,
        backend: Backend,
        breaker: CircuitBreaker,
        probe: TokenIds,
        batch_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._breaker = breaker
        self._probe = probe
        self._batch_timeout = batch_timeout
        self._clock = clock

    def warm_up(self, buckets: Sequence[int], max_batch_tokens: int) -> float:
        """Compute a full batch of each bucket; return padded tokens per second.

        All memory that batches will ever need is touched here, before anybody measures growth.
        Raises BackendError: the backend does not work at all.
        """
        started, tokens = self._clock(), 0
        for bucket in buckets:
            count = max(1, max_batch_tokens // bucket)
            row = np.resize(self._probe, bucket)
            self._compute([row] * count, bucket)
            tokens += count * bucket
        return tokens / max(self._clock() - started, 1e-6)

    def encode(self, rows: Sequence[TokenIds], bucket: int) -> list[Vectors | BackendError]:
        """Return a vector, or its own error, for each row.

        Raises CircuitOpenError: nothing was tried. BackendError: the backend failed whatever the
        input.
        """
        results: list[Vectors | BackendError] = self._breaker.call(self._encode, rows, bucket)
        return results

    def _encode(self, rows: Sequence[TokenIds], bucket: int) -> list[Vectors | BackendError]:
        started = self._clock()
        try:
            vectors = self._compute(rows, bucket)
        except BackendError as error:
            self._compute([self._probe], len(self._probe))
            return [error] if len(rows) == 1 else self._halve(rows, bucket)
        elapsed = self._clock() - started
        if elapsed > self._batch_timeout:
            raise BatchTimeoutError(f"a batch took {elapsed:.1f} s")
        return list(vectors)

    def _halve(self, rows: Sequence[TokenIds], bucket: int) -> list[Vectors | BackendError]:
        middle = len(rows) // 2
        return [*self._isolate(rows[:middle], bucket), *self._isolate(rows[middle:], bucket)]

    def _isolate(self, rows: Sequence[TokenIds], bucket: int) -> list[Vectors | BackendError]:
        try:
            return list(self._compute(rows, bucket))
        except BackendError as error:
            return [error] if len(rows) == 1 else self._halve(rows, bucket)

    def _compute(self, rows: Sequence[TokenIds], bucket: int) -> Vectors:
        try:
            vectors = self._backend.encode(rows, bucket)
        except Exception as error:
            # MemoryError too, which the breaker by itself would take for the caller's own.
            raise BackendError(f"the backend failed ({type(error).__name__}: {error})") from error
        if not np.isfinite(vectors).all():
            raise BackendError("the backend computed vectors that are not finite")
        return vectors
