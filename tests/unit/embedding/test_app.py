"""The application in process: routes, limits, and the life of the model behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from memguard_native.breaker.breaker import CircuitBreaker
from memguard_native.embedding.app import create_app
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Phase

from .fakes import POISON, FakeBackend, GatedBackend, fail_on_poison, loaded

HELLO = {"model": "tiny", "input": "hello"}


class FakeMonitor:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


class Server:
    """The application with a client, started and waited for."""

    def __init__(self, load, breaker=None, **config) -> None:
        self.monitor = FakeMonitor()
        self.changed = asyncio.Event()
        self.app = create_app(
            EmbeddingConfig(**{"served_name": "tiny", "aliases": ("org/tiny",), **config}),
            load=load,
            breaker=breaker,
            monitor=self.monitor,  # type: ignore[arg-type]
            on_change=lambda phase: self.changed.set(),
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://server")

    async def reach(self, phase: Phase) -> None:
        async with asyncio.timeout(20):
            while self.app.state.service.phase is not phase:
                self.changed.clear()
                await self.changed.wait()

    async def post(self, body: object = HELLO, **options) -> httpx.Response:
        return await self.client.post("/v1/embeddings", json=body, **options)


@asynccontextmanager
async def serving(load, **options) -> AsyncIterator[Server]:
    server = Server(load, **options)
    async with server.app.router.lifespan_context(server.app), server.client:
        await server.reach(Phase.ready)
        yield server


def ask(tokenizer, *bodies, backend=None, **options) -> list[httpx.Response]:
    """Start a server, send the bodies one after the other, return the answers."""

    async def scenario():
        async with serving(loaded(backend or FakeBackend(), tokenizer), **options) as server:
            return [await server.post(body) for body in bodies]

    return asyncio.run(scenario())


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_a_text_is_answered_with_its_vector_and_its_tokens(tokenizer):
    (response,) = ask(tokenizer, HELLO)
    body = response.json()
    assert (response.status_code, body["model"]) == (200, "tiny")
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(body["data"][0]["embedding"]) == 4
    assert response.headers["content-type"] == "application/json"


def test_an_alias_is_as_good_as_the_name(tokenizer):
    (response,) = ask(tokenizer, {**HELLO, "model": "org/tiny"})
    assert response.json()["model"] == "tiny"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "other"}, (404, "model_not_found", "model")),
        ({"dimensions": 0}, (400, "invalid_value", "dimensions")),
        ({"dimensions": 5}, (400, "invalid_value", "dimensions")),
        ({"input": []}, (400, "empty_input", "input")),
        ({"input": [10_000]}, (400, "invalid_value", "input")),
        ({"input": ["a"] * 9}, (413, "request_too_large", "input")),
    ],
)
def test_what_cannot_be_served_is_told_by_code_and_parameter(tokenizer, changes, expected):
    (response,) = ask(tokenizer, {**HELLO, **changes}, max_inputs=8)
    assert error_of(response) == expected
    assert "retry-after-ms" not in response.headers


def test_a_request_of_too_many_tokens_is_refused(tokenizer):
    small, large = ask(
        tokenizer,
        {**HELLO, "input": ["a"] * 4},
        {**HELLO, "input": ["a"] * 5},
        max_request_tokens=64,
    )
    assert small.status_code == 200
    assert error_of(large) == (413, "request_too_large", "input")


def test_dimensions_shorten_the_vector_to_length_one(tokenizer):
    (response,) = ask(tokenizer, {**HELLO, "dimensions": 2})
    vector = response.json()["data"][0]["embedding"]
    assert len(vector) == 2
    assert sum(x * x for x in vector) == pytest.approx(1.0)


def test_truncated_inputs_are_counted_in_a_header(tokenizer):
    long = "alpha " * 100
    none, two = ask(tokenizer, HELLO, {**HELLO, "input": [long, "a", long]})
    assert "x-memguard-truncated" not in none.headers
    assert two.headers["x-memguard-truncated"] == "2"


def test_without_truncation_long_inputs_are_refused(tokenizer):
    (response,) = ask(tokenizer, {**HELLO, "input": ["a", "alpha " * 100]}, truncate=False)
    assert error_of(response) == (400, "context_length_exceeded", "input")


def test_many_inputs_over_several_slices_keep_their_order(tokenizer):
    words = ["alpha " * (1 + i % 5) for i in range(300)]
    (response,) = ask(tokenizer, {**HELLO, "input": words}, max_inputs=300)
    lengths = [entry["embedding"][1] for entry in response.json()["data"]]
    assert lengths == [3 + i % 5 for i in range(300)]


def test_a_failing_backend_is_a_500_and_an_open_breaker_a_503(tokenizer):
    async def scenario():
        backend, breaker = FakeBackend(), CircuitBreaker("b", failure_threshold=1)
        async with serving(loaded(backend, tokenizer), breaker=breaker) as server:
            backend.fail = lambda rows: 1 / 0
            answers = [await server.post() for _ in range(2)]
            ready = await server.client.get("/ready")
            health = await server.client.get("/health")
            return answers, ready, health

    (failed, rejected), ready, health = asyncio.run(scenario())
    assert error_of(failed) == (500, "backend_error", None)
    assert error_of(rejected) == (503, "unavailable", None)
    assert 25 <= int(rejected.headers["retry-after-ms"]) <= 2000
    assert "retry-after" not in rejected.headers
    assert (ready.status_code, ready.json()["reason"]) == (503, "breaker open")
    assert health.status_code == 200


def test_bad_input_never_opens_the_breaker(tokenizer):
    async def scenario():
        breaker = CircuitBreaker("b", failure_threshold=1)
        load = loaded(FakeBackend(fail_on_poison), tokenizer)
        async with serving(load, breaker=breaker) as server:
            bad = [{**HELLO, "input": [POISON]}, {**HELLO, "model": "x"}, {"input": ""}]
            return [(await server.post(body)).status_code for body in [*bad, HELLO]]

    assert asyncio.run(scenario()) == [500, 404, 400, 200]


def test_the_breaker_is_named_after_the_model(tokenizer):
    server = Server(loaded(FakeBackend(), tokenizer))
    assert server.app.state.service.breaker.name == "embed:tiny"


def test_a_waiting_request_is_the_probe_of_a_half_open_breaker(tokenizer):
    from memguard_native._core import ManualClock

    async def scenario():
        clock = ManualClock()
        breaker = CircuitBreaker("b", clock=clock)
        async with serving(loaded(FakeBackend(), tokenizer), breaker=breaker) as server:
            breaker.trip()
            rejected = await server.post()
            clock.advance(60.0)
            return rejected.status_code, (await server.post()).status_code

    assert asyncio.run(scenario()) == (503, 200)


def test_before_and_after_its_life_the_service_is_unavailable_but_says_why(tokenizer):
    async def scenario():
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def load():
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
            return loaded(FakeBackend(), tokenizer)()

        server = Server(load)
        answers = []
        async with server.client:
            async with server.app.router.lifespan_context(server.app):
                answers.append((await server.post(), await server.client.get("/ready")))
                assert (await server.client.get("/health")).status_code == 200
                release.set()
                await server.reach(Phase.ready)
                assert (await server.client.get("/ready")).json() == {"status": "ready"}
            answers.append((await server.post(), await server.client.get("/ready")))
            assert (await server.client.get("/health")).status_code == 503
        return answers, server.monitor.calls

    answers, monitor_calls = asyncio.run(scenario())
    for (response, ready), reason in zip(answers, ["loading", "stopped"], strict=True):
        assert error_of(response) == (503, "unavailable", None)
        assert 25 <= int(response.headers["retry-after-ms"]) <= 2000
        assert ready.json() == {"status": "unavailable", "reason": reason}
    assert monitor_calls == ["start", "stop"]


def test_a_service_that_failed_says_so_and_is_not_healthy(tokenizer):
    async def scenario():
        server = Server(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        async with server.app.router.lifespan_context(server.app), server.client:
            await server.reach(Phase.failed)
            return await server.post(), await server.client.get("/healthz")

    response, health = asyncio.run(scenario())
    assert error_of(response) == (503, "unavailable", None)
    assert health.status_code == 503


def test_more_requests_than_places_are_told_to_come_again(tokenizer):
    async def scenario():
        backend = GatedBackend()
        load = loaded(backend, tokenizer)
        async with serving(load, max_concurrent_requests=2) as server:
            backend.closed = True
            waiting = [asyncio.create_task(server.post()) for _ in range(2)]
            await asyncio.to_thread(backend.entered.acquire, timeout=20)
            refused = await server.post()
            backend.closed = False
            backend.gate.release()
            statuses = [(await task).status_code for task in waiting]
            return refused, [*statuses, (await server.post()).status_code]

    refused, statuses = asyncio.run(scenario())
    assert error_of(refused) == (429, "overloaded", None)
    assert "retry-after-ms" in refused.headers
    assert statuses == [200, 200, 200]


def test_a_request_without_progress_is_given_up(tokenizer):
    async def scenario():
        backend = GatedBackend()
        async with serving(loaded(backend, tokenizer), queue_timeout=0.01) as server:
            backend.closed = True
            response = await server.post()
            backend.closed = False
            backend.gate.release()
            return response

    response = asyncio.run(scenario())
    assert error_of(response) == (503, "unavailable", None)
    assert "No progress for 0.01 s" in response.text


@pytest.mark.parametrize("chunked", [True, False])
def test_an_oversize_body_is_refused_whether_declared_or_counted(tokenizer, chunked):
    async def chunks():
        for _ in range(4):
            yield b"x" * 300

    async def scenario():
        async with serving(loaded(FakeBackend(), tokenizer), max_body_bytes=1000) as server:
            content = chunks() if chunked else b"x" * 1200
            return await server.client.post("/v1/embeddings", content=content)

    response = asyncio.run(scenario())
    assert error_of(response) == (413, "request_too_large", None)
    assert "more than 1000 bytes" in response.text


def test_a_body_that_does_not_arrive_is_given_up(tokenizer):
    async def never():
        yield b"{"
        await asyncio.Event().wait()

    async def scenario():
        async with serving(loaded(FakeBackend(), tokenizer), read_timeout=0.01) as server:
            return await server.client.post("/v1/embeddings", content=never())

    assert error_of(asyncio.run(scenario())) == (408, "request_timeout", None)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (404, "not_found", None)),
        ("GET", "/v1/embeddings", (405, "method_not_allowed", None)),
        ("GET", "/v1/models/other", (404, "model_not_found", "model")),
    ],
)
def test_wrong_routes_have_openais_shape_too(tokenizer, method, path, expected):
    async def scenario():
        async with serving(loaded(FakeBackend(), tokenizer)) as server:
            return await server.client.request(method, path)

    assert error_of(asyncio.run(scenario())) == expected


def test_the_models_are_listed_by_all_their_names(tokenizer):
    async def scenario():
        async with serving(loaded(FakeBackend(), tokenizer)) as server:
            listed = await server.client.get("/v1/models")
            one = await server.client.get("/v1/models/org/tiny")
            return [entry["id"] for entry in listed.json()["data"]], one.json()["id"]

    assert asyncio.run(scenario()) == (["tiny", "org/tiny"], "org/tiny")


def test_token_input_that_looks_foreign_is_warned_of_once(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "memguard_native.embedding"):
        ask(tokenizer, *[{**HELLO, "input": [4, 5, 6, 12]}] * 3)
    assert caplog.text.count("check_embedding_ctx_length=False") == 1


def test_token_input_from_langchain_is_warned_of(tokenizer, caplog):
    async def scenario():
        async with serving(loaded(FakeBackend(), tokenizer)) as server:
            headers = {"user-agent": "langchain-openai/1.0"}
            await server.post({**HELLO, "input": [12, 13]}, headers=headers)

    with caplog.at_level(logging.WARNING, "memguard_native.embedding"):
        asyncio.run(scenario())
    assert "check_embedding_ctx_length=False" in caplog.text


async def speak(app, receive) -> list[dict[str, object]]:
    """One request in ASGI itself; return what the application sent."""
    sent: list[dict[str, object]] = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "headers": [],
        "query_string": b"",
    }
    await app(scope, receive, send)
    return sent


def test_an_answered_request_leaves_no_task_behind(tokenizer):
    async def scenario():
        messages = [{"type": "http.request", "body": b'{"model": "tiny", "input": "hello"}'}]

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        async with serving(loaded(FakeBackend(), tokenizer)) as server:
            before = asyncio.all_tasks()
            sent = await speak(server.app, receive)
            await asyncio.sleep(0)
            return sent[0]["status"], asyncio.all_tasks() - before

    assert asyncio.run(scenario()) == (200, set())


def test_a_client_that_leaves_frees_its_place_in_the_queue(tokenizer):
    async def scenario():
        backend = GatedBackend()
        async with serving(loaded(backend, tokenizer)) as server:
            backend.closed = True
            first = asyncio.create_task(server.post())
            await asyncio.to_thread(backend.entered.acquire, timeout=20)
            gone = asyncio.Event()
            messages = [{"type": "http.request", "body": b'{"model": "tiny", "input": "hello"}'}]

            async def receive():
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            queue = server.app.state.service._engine._queue
            request = asyncio.create_task(speak(server.app, receive))
            async with asyncio.timeout(20):
                while not queue.tokens:
                    await asyncio.sleep(0)
            gone.set()
            sent = await request
            assert queue.tokens == 0
            batches = len(backend.batches)
            backend.closed = False
            backend.gate.release()
            await first
            await server.post()
            return sent[0]["status"], len(backend.batches) - batches

    assert asyncio.run(scenario()) == (499, 1)
