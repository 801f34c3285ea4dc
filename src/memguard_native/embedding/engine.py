"""The inference thread: loads the model, then computes batches as long as it is wanted.

There is one, so that one batch's memory is all there ever is, and so that compute threads do not
fight over cores. A batch is taken as soon as the thread is free: batches form by themselves under
load, without a waiting timer. Finished and failed requests of a batch go back to the event loop in
one `call_soon_threadsafe`. The loop's side never waits for the thread: it holds the queue's lock
for microseconds only.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from memguard_native.embedding.batching import Batch, BatchQueue, Job, make_buckets
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.errors import ApiError, BackendError, overloaded, unavailable
from memguard_native.embedding.guard import GuardedBackend
from memguard_native.embedding.loading import LoadedModel
from memguard_native.errors import CircuitOpenError

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker
    from memguard_native.embedding.backends import TokenIds, Vectors

_LOG = logging.getLogger("memguard_native.embedding")
_QUEUE_SECONDS = 4.0  # how much waiting work is accepted unless configured
_RATE_SECONDS = 30.0  # time constant of the measured drain rate
_PROBE_LENGTH = 8


class Phase(enum.StrEnum):
    """Where the server stands. Requests are computed in `ready` only."""

    loading = "loading"
    warming = "warming"
    ready = "ready"
    draining = "draining"
    stopped = "stopped"
    failed = "failed"


class Ticket(Job):
    """A job with its vectors and the future of their being there. Made on the event loop."""

    __slots__ = ("future", "progressed_at", "remaining", "vectors")

    def __init__(
        self, rows: Sequence[TokenIds], buckets: Sequence[int], dimensions: int, now: float
    ) -> None:
        super().__init__(rows, buckets)
        self.vectors: Vectors = np.empty((len(rows), dimensions), np.float32)
        self.remaining = len(rows)
        self.progressed_at = now
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Engine:
    """Loads a model with `load` in a thread of its own and computes with it behind `breaker`.

    `on_change(phase)` is called on the event loop after each change of phase.
    """

    def __init__(
        self,
        config: EmbeddingConfig,
        load: Callable[[], LoadedModel],
        breaker: CircuitBreaker,
        on_change: Callable[[Phase], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._load = load
        self._breaker = breaker
        self._on_change = on_change
        self._clock = clock
        self._condition = threading.Condition()
        self._closing = False
        self._batch: Batch[Ticket] | None = None
        self._busy_since: float | None = None
        self._tokens_per_second = 0.0
        # Replaced once the model's lengths are known; nothing is submitted before.
        self._queue: BatchQueue[Ticket] = BatchQueue((), 0, 0)
        self.phase = Phase.loading
        self.failure: Exception | None = None

    def start(self) -> None:
        """Start loading. Call it on the event loop that requests will come from."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a backend that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="memguard-inference", daemon=True)
        self._thread.start()

    async def close(self, timeout: float) -> None:
        """Compute what waits for at most `timeout` seconds, then stop. What is left gets a 503."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self.phase is not Phase.failed:
            self._enter(Phase.draining)
        await asyncio.to_thread(self._thread.join, timeout)
        self._give_up("The server is shutting down.", wait=0.2)
        if self.phase is not Phase.failed:
            self._enter(Phase.stopped)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs and its present batch is not older than `batch_timeout`."""
        busy_since = self._busy_since
        stuck = busy_since is not None and self._clock() - busy_since > self._config.batch_timeout
        return self._thread.is_alive() and not stuck

    @property
    def tokens_in_flight(self) -> int:
        """The tokens that wait, and those of the batch that is being computed."""
        batch = self._batch
        return self._queue.tokens + (0 if batch is None else batch.tokens)

    def submit(self, ticket: Ticket) -> None:
        """Queue `ticket` as a whole.

        Raises ApiError: the queue is full.
        """
        with self._condition:
            admitted = self._queue.add(ticket)
            waiting = self._queue.tokens
            self._condition.notify()
        if not admitted:
            raise overloaded("The queue is full.", wait=waiting / self._tokens_per_second)

    def cancel(self, ticket: Ticket) -> None:
        """Skip what is left of `ticket`. A batch that is being computed is not interrupted."""
        with self._condition:
            self._queue.remove(ticket)

    # --- the inference thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._prepare()
            while (batch := self._next_batch()) is not None:
                self._finish(*self._compute(batch))
        except Exception as error:  # noqa: BLE001 - whatever it was, `failure` tells it
            _LOG.debug("the inference thread ends", exc_info=True)
            self.failure = error
            self._tell(self._fail)

    def _prepare(self) -> None:
        self.model = model = self._load()
        self.buckets = make_buckets(model.tokenizer.max_length)
        max_batch_tokens = self._batch_tokens(model)
        self._tell(self._enter, Phase.warming)
        model.backend.prepare(max_batch_tokens)
        probe = model.tokenizer.encode_texts(["warm-up " * self.buckets[-1]])[0].ids
        guarded = GuardedBackend(
            model.backend,
            self._breaker,
            probe[:_PROBE_LENGTH],
            self._config.batch_timeout,
            self._clock,
        )
        self._tokens_per_second = guarded.warm_up(self.buckets, max_batch_tokens)
        queue_tokens = self._config.max_queue_tokens
        if queue_tokens is None:
            queue_tokens = int(_QUEUE_SECONDS * self._tokens_per_second)
        self._queue = BatchQueue(self.buckets, max_batch_tokens, queue_tokens)
        self._guarded = guarded
        self._tell(self._enter, Phase.ready)

    def _batch_tokens(self, model: LoadedModel) -> int:
        tokens = self._config.max_batch_tokens or model.backend.default_batch_tokens
        longest = self.buckets[-1]
        if tokens < longest:
            # Otherwise an input of full length would never be taken
            # (text-embeddings-inference#723).
            _LOG.warning(
                "max_batch_tokens is raised from %d to the model's length, %d", tokens, longest
            )
        return max(tokens, longest)

    def _next_batch(self) -> Batch[Ticket] | None:
        with self._condition:
            self._busy_since = None
            while (batch := self._queue.take()) is None and not self._closing:
                self._condition.wait()
            if batch is not None:
                self._busy_since = self._clock()
            self._batch = batch
            return batch

    def _compute(self, batch: Batch[Ticket]) -> tuple[list[Ticket], dict[Ticket, ApiError]]:
        """Compute `batch`; return the jobs that it completes, and those that it fails with why."""
        started = self._clock()
        try:
            rows = [job.rows[index] for job, index in batch.items]
            results = self._guarded.encode(rows, batch.bucket)
        except CircuitOpenError as error:
            return [], {job: self.open_circuit(error.retry_after) for job, _ in batch.items}
        except BackendError as error:
            _LOG.error("the backend failed", exc_info=error)
            return [], {job: _backend_error() for job, _ in batch.items}
        now = self._clock()
        self._measure(batch.tokens, now - started)
        done: list[Ticket] = []
        failed: dict[Ticket, ApiError] = {}
        for (job, index), result in zip(batch.items, results, strict=True):
            if isinstance(result, BackendError):
                _LOG.error("the backend failed on one input", exc_info=result)
                failed[job] = _backend_error()
                continue
            job.vectors[index] = result
            job.progressed_at = now
            job.remaining -= 1
            if job.remaining == 0:
                done.append(job)
        return done, failed

    def _measure(self, tokens: int, seconds: float) -> None:
        weight = 1 - math.exp(-seconds / _RATE_SECONDS)
        rate = tokens / max(seconds, 1e-6)
        self._tokens_per_second += weight * (rate - self._tokens_per_second)

    def _finish(self, done: list[Ticket], failed: dict[Ticket, ApiError]) -> None:
        with self._condition:
            for job in failed:
                self._queue.remove(job)
        if done or failed:
            self._tell(_settle, done, failed)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop was closed without `close()`: nobody is left to tell.
            _LOG.debug("the event loop is gone", exc_info=True)

    # --- the event loop ------------------------------------------------------------------------

    def open_circuit(self, wait: float) -> ApiError:
        """Return the answer while the breaker is open; `wait`: seconds that it says."""
        return unavailable(f"The backend fails: {self._breaker.name} is open.", wait=wait)

    def _enter(self, phase: Phase) -> None:
        # Nothing brings a server back from draining: a late "ready" of the thread must not.
        if self._closing and phase not in (Phase.draining, Phase.stopped):
            return
        self.phase = phase
        self._on_change(phase)

    def _fail(self) -> None:
        self.phase = Phase.failed
        self._give_up("The server has failed.", wait=1.0)
        self._on_change(Phase.failed)

    def _give_up(self, message: str, wait: float) -> None:
        """Fail every job that still waits, and those of a batch that does not end."""
        with self._condition:
            jobs = self._queue.clear()
            if self._batch is not None:
                jobs += [job for job, _ in self._batch.items]
        _settle([], {job: unavailable(message, wait) for job in jobs})


def _backend_error() -> ApiError:
    message = "The backend failed on this request; the log of the server says why."
    return ApiError(500, "backend_error", message)


def _settle(done: Sequence[Ticket], failed: dict[Ticket, ApiError]) -> None:
    for job in done:
        if not job.future.done():  # the client may have left meanwhile
            job.future.set_result(None)
    for job, error in failed.items():
        if not job.future.done():
            job.future.set_exception(error)
