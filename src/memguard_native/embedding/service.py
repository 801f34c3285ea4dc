"""One served model: its names, its life cycle, and the way of a request through it.

A request is tokenised in a thread of its own, a slice of its inputs at a time, so that a long one
does not hold up the others; then the inference thread (`engine`) computes it. Everything here runs
on the event loop and never blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from memguard_native.breaker.breaker import CircuitBreaker, State
from memguard_native.embedding import schema
from memguard_native.embedding.batching import bucket_of
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Engine, Phase, Ticket
from memguard_native.embedding.errors import (
    MAX_RETRY_AFTER_MS,
    ApiError,
    invalid,
    overloaded,
    too_large,
    unavailable,
)
from memguard_native.embedding.loading import LoadedModel, check_model, load_model
from memguard_native.embedding.models import default_served_name, locate_model
from memguard_native.embedding.schema import EmbeddingRequest
from memguard_native.embedding.tokenize import FOREIGN_IDS_HINT, Row
from memguard_native.recycling import worker

if TYPE_CHECKING:
    from memguard_native.breaker.events import BreakerEvent
    from memguard_native.embedding.backends import Vectors

T = TypeVar("T")
_LOG = logging.getLogger("memguard_native.embedding")

# A slice of tokenising, in inputs and in characters: other requests' slices wait for it.
_SLICE_INPUTS = 64
_SLICE_SIZE = 65_536
_RETRY_SECONDS = {Phase.loading: 1.0, Phase.warming: 0.3, Phase.draining: 0.2, Phase.stopped: 0.2}
# Up to so many vectors are written on the event loop itself (0.1 to 0.7 ms).
_INLINE_VECTORS = 64


@dataclass(frozen=True)
class Answer:
    """The body of a successful answer, and how many inputs were cut."""

    body: bytes
    truncated: int


class ClientGoneError(Exception):
    """The client closed its connection before the answer was there."""


class EmbeddingService:
    """Serves the model that `config` names, or the one that `load` returns.

    `on_change(phase)`, if given, is called on the event loop after each change of phase.
    Raises ConfigError, ModelError: the model cannot be found, or the backend cannot compute it.
    """

    def __init__(
        self,
        config: EmbeddingConfig,
        *,
        load: Callable[[], LoadedModel] | None = None,
        breaker: CircuitBreaker | None = None,
        on_change: Callable[[Phase], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        names = None if config.served_name is None else [config.served_name]
        if load is None:
            location = locate_model(config.model, config.revision)
            check_model(config, location)
            load = functools.partial(load_model, config, location)
            names = names or [default_served_name(location), *location.aliases]
        self.names = list(dict.fromkeys([*(names or ["custom"]), *config.aliases]))
        self.name = self.names[0]
        self.breaker = breaker or CircuitBreaker(f"embed:{self.name}", on_event=_ask_for_another)
        self.created = int(time.time())
        self._clock = clock
        self._on_change = on_change
        self._started: asyncio.Future[None] | None = None
        self._active_requests = 0
        self._warned_foreign = False
        self._engine = Engine(config, load, self.breaker, self._changed, clock)

    # --- life cycle ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start loading. Call it on the event loop that requests will come from."""
        self._aside_thread = ThreadPoolExecutor(1, thread_name_prefix="memguard-tokenize")
        self._engine.start()

    async def close(self) -> None:
        """Compute what waits, for at most `drain_timeout` seconds, then stop both threads."""
        await self._engine.close(self.config.drain_timeout)
        self._aside_thread.shutdown(wait=False, cancel_futures=True)

    async def started(self) -> None:
        """Wait until requests are served. Raises why the service has failed, if it has."""
        while self.phase in (Phase.loading, Phase.warming):
            self._started = asyncio.get_running_loop().create_future()
            await self._started
        if self.failure is not None:
            raise self.failure

    def _changed(self, phase: Phase) -> None:
        _LOG.info("%s: %s", self.name, phase.value)
        if self._started is not None and not self._started.done():
            self._started.set_result(None)
        if self._on_change is not None:
            self._on_change(phase)

    @property
    def phase(self) -> Phase:
        """Where the service stands."""
        return self._engine.phase

    @property
    def tokens_in_flight(self) -> int:
        """The tokens that wait or are being computed."""
        return self._engine.tokens_in_flight

    @property
    def failure(self) -> Exception | None:
        """Why the service failed, if it did."""
        return self._engine.failure

    @property
    def dimensions(self) -> int:
        """Length of the model's vectors. Known once the phase is past loading."""
        return self._engine.model.backend.dimensions

    @property
    def is_alive(self) -> bool:
        """Whether the inference thread works or waits for work."""
        return self.phase not in (Phase.failed, Phase.stopped) and self._engine.is_alive

    def why_not_ready(self) -> str | None:
        """Return why requests are refused now, or None if they are served."""
        if self.phase is not Phase.ready:
            return self.phase.value
        return "breaker open" if self.breaker.state is State.open else None

    # --- one request ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the places for requests. Raises ApiError: all are taken."""
        if self._active_requests >= self.config.max_concurrent_requests:
            raise overloaded("Too many requests at the same time.", wait=0.5)
        self._active_requests += 1
        try:
            yield
        finally:
            self._active_requests -= 1

    async def embed(
        self, request: EmbeddingRequest, client_gone: asyncio.Future[Any], user_agent: str
    ) -> Answer:
        """Answer `request`.

        Raises ApiError: it cannot be served. ClientGoneError: `client_gone` was done first.
        """
        self._check_available()
        self._check(request)
        rows = await self._tokenize(request, client_gone)
        if request.token_ids:
            await self._warn_of_foreign_ids(request.token_ids, user_agent)
        ids = [row.ids for row in rows]
        # Asked again: tokenising took its time, and the engine must not be given work while it
        # closes.
        self._check_available()
        ticket = Ticket(ids, self._engine.buckets, self.dimensions, self._clock())
        self._engine.submit(ticket)
        try:
            await self._wait(ticket, client_gone)
        finally:
            if not ticket.future.done():
                ticket.future.cancel()
                self._engine.cancel(ticket)
        tokens = sum(map(len, ids))
        worker.count(inputs=len(ids), tokens=tokens)
        body = await self._write(request, ticket.vectors, tokens)
        return Answer(body, sum(row.truncated for row in rows))

    def _check_available(self) -> None:
        if self.phase is Phase.failed:
            raise unavailable("The server has failed; its log says why.", wait=1.0)
        if self.phase is not Phase.ready:
            message = f"The server is not ready: {self.phase.value}."
            raise unavailable(message, wait=_RETRY_SECONDS[self.phase])
        if self.breaker.state is State.open:
            raise self._engine.open_circuit(self.breaker.retry_after)

    def _check(self, request: EmbeddingRequest) -> None:
        if request.model not in self.names:
            message = f"The model {request.model!r} does not exist; this server has {self.name!r}."
            raise ApiError(404, "model_not_found", message, param="model")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            message = f"'dimensions' must be in 1..{self.dimensions}."
            raise invalid(message, param="dimensions")

    async def _tokenize(
        self, request: EmbeddingRequest, client_gone: asyncio.Future[Any]
    ) -> list[Row]:
        tokenizer = self._engine.model.tokenizer
        rows: list[Row] = []
        tokens = 0
        for part in _slices(request.inputs):
            if client_gone.done():
                raise ClientGoneError
            if request.texts:
                slice_rows = await self._aside(tokenizer.encode_texts, request.texts[part])
            else:
                slice_rows = await self._aside(tokenizer.encode_ids, request.token_ids[part])
            rows += slice_rows
            tokens += sum(bucket_of(len(row.ids), self._engine.buckets) for row in slice_rows)
            self._check_length(slice_rows, tokens)
        return rows

    def _check_length(self, rows: list[Row], tokens: int) -> None:
        limit = self.config.max_request_tokens
        if tokens > limit:
            message = f"More than {limit} tokens in a request: split its inputs over several."
            raise too_large(message, param="input")
        if not self.config.truncate and any(row.truncated for row in rows):
            length = self._engine.model.tokenizer.max_length
            message = f"An input is longer than the model's {length} tokens."
            raise invalid(message, param="input", code="context_length_exceeded")

    async def _warn_of_foreign_ids(self, ids: list[list[int]], user_agent: str) -> None:
        """Say once that token input looks like another tokenizer's: its vectors are garbage."""
        if self._warned_foreign:
            return
        looks_foreign = self._engine.model.tokenizer.looks_foreign
        if "langchain" in user_agent.lower() or await self._aside(looks_foreign, ids):
            self._warned_foreign = True
            _LOG.warning(
                "token input that seems to be from another tokenizer; %s", FOREIGN_IDS_HINT
            )

    async def _wait(self, ticket: Ticket, client_gone: asyncio.Future[Any]) -> None:
        limit = self.config.queue_timeout
        while not ticket.future.done():
            patience = ticket.progressed_at + limit - self._clock()
            if patience <= 0:
                raise unavailable(f"No progress for {limit:g} s.", wait=MAX_RETRY_AFTER_MS / 1000)
            waited_for = {ticket.future, client_gone}
            await asyncio.wait(waited_for, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if client_gone.done() and not ticket.future.done():
                raise ClientGoneError
        ticket.future.result()

    async def _write(self, request: EmbeddingRequest, vectors: Vectors, tokens: int) -> bytes:
        if request.dimensions is not None:
            vectors = schema.shorten(vectors, request.dimensions)
        write = functools.partial(
            schema.encode_response, vectors, self.name, tokens, as_base64=request.as_base64
        )
        return write() if len(vectors) <= _INLINE_VECTORS else await self._aside(write)

    async def _aside(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` in the tokenising thread: short, or releasing the GIL."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside_thread, work, *arguments)


def _ask_for_another(event: BreakerEvent) -> None:
    """The sickness is this process's: with another one it may be gone."""
    if event.to_state == State.open:
        worker.ask("backend")


def _slices(inputs: Sequence[str] | Sequence[Sequence[int]]) -> Iterator[slice]:
    start = size = 0
    for index, value in enumerate(inputs):
        full = index - start >= _SLICE_INPUTS or size + len(value) > _SLICE_SIZE
        if index > start and full:
            yield slice(start, index)
            start, size = index, 0
        size += len(value)
    yield slice(start, len(inputs))
