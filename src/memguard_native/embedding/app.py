"""The ASGI application: OpenAI's routes for embeddings, and what a supervisor asks.

POST /v1/embeddings, GET /v1/models and /v1/models/{id}; /health is 200 while the event loop and the
inference thread work, /ready while requests are served (also as /healthz and /readyz). Errors have
OpenAI's shape. 429 and 503 carry `retry-after-ms` and never Retry-After. The lifespan starts and
stops the model's threads and the memory monitor; the model is loaded behind /ready, so the port
answers at once.

As a worker of `recycling.run` it does as workers do: start-up ends when the model is warm, memory
is watched by the worker, which is told the tokens in flight as load and what was computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from memguard_native.breaker.breaker import CircuitBreaker
from memguard_native.embedding import schema
from memguard_native.embedding.body import read_body
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Phase
from memguard_native.embedding.errors import ApiError
from memguard_native.embedding.loading import LoadedModel
from memguard_native.embedding.service import ClientGoneError, EmbeddingService
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.recycling import worker

_LOG = logging.getLogger("memguard_native.embedding")
# nginx's code for a client that left; it goes nowhere but into access logs.
_CLIENT_CLOSED_REQUEST = 499


def create_app(
    config: EmbeddingConfig,
    *,
    load: Callable[[], LoadedModel] | None = None,
    breaker: CircuitBreaker | None = None,
    monitor: MemoryMonitor | None = None,
    on_change: Callable[[Phase], None] | None = None,
) -> Starlette:
    """Return the application that serves the model of `config`.

    `load`, `breaker` and `monitor` replace the parts made from `config`: the model, a breaker
    called "embed:<served name>", a monitor with its defaults. `on_change(phase)` is called on the
    event loop after each change of the service's phase. Set OPENBLAS_NUM_THREADS=1 and
    OMP_NUM_THREADS=1 before numpy is imported; `memguard embed` does.

    Raises ConfigError, ModelError: the model cannot be found, or the backend cannot compute it.
    """
    service = EmbeddingService(config, load=load, breaker=breaker, on_change=on_change)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with _watched(service, monitor):
            service.start()
            try:
                if worker.is_supervised():
                    await service.started()
                yield
            finally:
                await service.close()

    app = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_gone,
            ClientGoneError: _client_gone,
            Exception: _unexpected_error,
        },
    )
    app.state.service = service
    return app


@contextlib.asynccontextmanager
async def _watched(service: EmbeddingService, monitor: MemoryMonitor | None) -> AsyncIterator[None]:
    """Memory is watched by the worker that this process is, else by a monitor of its own."""
    if worker.is_supervised():
        worker.load_from(lambda: service.tokens_in_flight)
        yield
        return
    memory = monitor or MemoryMonitor(log_samples=True, load=lambda: service.tokens_in_flight)
    memory.start()
    try:
        yield
    finally:
        await asyncio.to_thread(memory.stop)  # joins its thread


def _routes() -> list[Route]:
    return [
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{name:path}", _model),
        Route("/health", _health),
        Route("/healthz", _health),
        Route("/ready", _ready),
        Route("/readyz", _ready),
    ]


def _service(request: Request) -> EmbeddingService:
    service = request.app.state.service
    assert isinstance(service, EmbeddingService)
    return service


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


async def _embeddings(request: Request) -> Response:
    service = _service(request)
    config = service.config
    with service.slot():
        body = await read_body(request, config.max_body_bytes, config.read_timeout)
        wanted = schema.parse_request(body, config.max_inputs)
        del body  # not needed while the request waits
        # After the body nothing more arrives but the news that the client left.
        client_gone = asyncio.ensure_future(request.receive())
        try:
            user_agent = request.headers.get("user-agent", "")
            answer = await service.embed(wanted, client_gone, user_agent)
        finally:
            client_gone.cancel()
    headers = {"x-memguard-truncated": str(answer.truncated)} if answer.truncated else None
    return _json(answer.body, headers=headers)


async def _models(request: Request) -> Response:
    service = _service(request)
    return _json(schema.encode_models(service.names, service.created))


async def _model(request: Request) -> Response:
    service, name = _service(request), request.path_params["name"]
    if name not in service.names:
        message = f"The model {name!r} does not exist; this server has {service.name!r}."
        raise ApiError(404, "model_not_found", message, param="model")
    return _json(schema.encode_model(name, service.created))


async def _health(request: Request) -> Response:
    service = _service(request)
    return _status(service.is_alive, "ok", service.phase.value)


async def _ready(request: Request) -> Response:
    reason = _service(request).why_not_ready()
    return _status(reason is None, "ready", reason)


def _status(good: bool, name: str, reason: str | None) -> Response:
    if good:
        return _json(schema.encode_status(name))
    return _json(schema.encode_status("unavailable", reason), 503)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = None
    if error.retry_after_ms is not None:
        headers = {"retry-after-ms": str(error.retry_after_ms)}
    return _json(schema.encode_error(error), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {
        404: ("not_found", "There is no such route."),
        405: ("method_not_allowed", error.detail),
    }
    code, message = known.get(error.status_code, ("invalid_value", error.detail))
    body = schema.encode_error(ApiError(error.status_code, code, message))
    return _json(body, error.status_code, dict(error.headers or {}))


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, so the server's log has the traceback.
    message = "The server failed on this request; its log says why."
    return _json(schema.encode_error(ApiError(500, "internal_error", message)), 500)
