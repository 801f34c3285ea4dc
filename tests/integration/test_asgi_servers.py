"""A monitored application behind a real uvicorn: FastAPI, Starlette and no framework at all."""

from __future__ import annotations

import asyncio
import http.client
import threading
from urllib.parse import urlsplit

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.integration.servers import served

from memguard_native import MemoryMonitor
from memguard_native.integrations.asgi import MemoryMonitorMiddleware


@pytest.fixture
def monitor():
    monitor = MemoryMonitor(interval=0.01)
    yield monitor
    monitor.stop()


def ask(url, method="GET", path="/", body=None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.request(method, path, body)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def fastapi_app(monitor):
    app = fastapi.FastAPI()
    app.add_middleware(MemoryMonitorMiddleware, monitor=monitor)

    @app.get("/")
    async def load() -> str:
        return f"{monitor.running} {monitor.load.value}"

    return app


def starlette_app(monitor):
    async def load(_request):
        return PlainTextResponse(f"{monitor.running} {monitor.load.value}")

    middleware = [Middleware(MemoryMonitorMiddleware, monitor=monitor)]
    return Starlette(routes=[Route("/", load)], middleware=middleware)


def bare_app(monitor):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        text = f"{monitor.running} {monitor.load.value}"
        await send({"type": "http.response.body", "body": text.encode()})

    return MemoryMonitorMiddleware(app, monitor)


@pytest.mark.parametrize("make", [fastapi_app, starlette_app, bare_app])
def test_the_monitor_runs_with_the_server_and_knows_its_load(monitor, make):
    with served(make(monitor)) as url:
        wait_until(lambda: monitor.running, "the monitor does not run before the first request")
        for _ in range(3):
            assert ask(url).strip('"') == "True 1.0"
        assert monitor.load.requests.value == 3
    assert not monitor.running
    assert monitor.load.value == 0.0


def test_the_sampler_sees_what_is_in_flight(monitor):
    answer = threading.Event()

    async def slow(_request):
        await asyncio.to_thread(answer.wait)
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/", slow)])
    with served(MemoryMonitorMiddleware(app, monitor)) as url:
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            wait_for_load(monitor, 3.0)
        finally:
            answer.set()
        for client in clients:
            client.join()
        wait_for_load(monitor, 0.0)


def wait_for_load(monitor, load):
    wait_until(
        lambda: any(sample.load == load for sample in monitor.snapshot().samples[-1:]),
        f"no sample with a load of {load}",
    )


def wait_until(is_so, otherwise):
    """Returns as soon as it is so; 20 seconds are for a machine that is busy."""
    for _ in range(1000):
        if is_so():
            return
        threading.Event().wait(0.02)
    raise AssertionError(otherwise)


def test_a_response_that_streams_is_in_flight_to_its_end(monitor):
    seen = []

    async def stream(_request):
        async def parts():
            for _ in range(3):
                seen.append(monitor.load.value)
                yield b"x"

        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", stream)])
    with served(MemoryMonitorMiddleware(app, monitor)) as url:
        assert ask(url) == "xxx"
    assert seen == [1.0, 1.0, 1.0]


def test_bodies_in_flight_are_counted_as_they_come(monitor):
    async def size(request: Request):
        body = await request.body()
        return PlainTextResponse(f"{len(body)} {monitor.load.value:.0f}")

    app = Starlette(routes=[Route("/", size, methods=["POST"])])
    with served(MemoryMonitorMiddleware(app, monitor, unit="bytes")) as url:
        assert ask(url, "POST", body=b"x" * 300_000) == "300000 300001"
        assert ask(url, "POST", body=iter([b"y" * 1000] * 3)) == "3000 3001"
    assert monitor.load.value == 0.0


def test_a_failing_request_leaves_nothing_in_flight(monitor):
    async def fail(_request):
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/", fail)])
    with served(MemoryMonitorMiddleware(app, monitor)) as url:
        assert ask(url) == "Internal Server Error"
    assert monitor.load.value == 0.0
    assert monitor.load.requests.value == 1
