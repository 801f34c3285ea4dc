"""The ASGI middleware, driven by the protocol alone: no server, no framework."""

from __future__ import annotations

import asyncio
import logging

import pytest

from memguard_native import ConfigError, MemoryMonitor
from memguard_native.integrations.asgi import MemoryMonitorMiddleware
from memguard_native.testing import FakeProbe, ManualClock

HTTP = {"type": "http"}


@pytest.fixture
def monitor():
    monitor = MemoryMonitor(probe=FakeProbe(ManualClock()))
    yield monitor
    monitor.stop()


def told(*messages):
    """A `receive` that gives these messages, in order."""
    waiting = list(messages)

    async def receive():
        return waiting.pop(0)

    return receive


async def ignore(_message):
    pass


def body(content, more=False):
    return {"type": "http.request", "body": content, "more_body": more}


def run(app, scope=HTTP, receive=None, send=ignore):
    asyncio.run(app(scope, receive or told(), send))


async def lifespan_app(scope, receive, send):
    assert scope["type"] == "lifespan"
    for kind in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{kind}"
        await send({"type": f"lifespan.{kind}.complete"})


LIFESPAN = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})


# --- the load -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_is_in_flight_as_long_as_the_application_works_on_it(monitor, kind):
    seen = []

    async def app(_scope, _receive, send):
        seen.append(monitor.load.value)
        await send({"type": "http.response.start"})
        seen.append(monitor.load.value)

    run(MemoryMonitorMiddleware(app, monitor), {"type": kind})
    assert seen == [1.0, 1.0]
    assert monitor.load.value == 0.0
    assert monitor.load.requests.value == 1


def test_requests_at_the_same_time_add_up(monitor):
    seen = []

    async def app(_scope, receive, _send):
        await receive()
        seen.append(monitor.load.value)

    async def main():
        middleware = MemoryMonitorMiddleware(app, monitor)
        gate = asyncio.Event()

        async def receive():
            await gate.wait()
            return body(b"")

        requests = [asyncio.create_task(middleware(HTTP, receive, ignore)) for _ in range(3)]
        await asyncio.sleep(0)
        assert monitor.load.value == 3.0
        gate.set()
        await asyncio.gather(*requests)

    asyncio.run(main())
    assert seen == [3.0, 2.0, 1.0]
    assert monitor.load.requests.value == 3


def test_a_request_that_fails_is_no_longer_in_flight(monitor):
    async def app(_scope, _receive, _send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(MemoryMonitorMiddleware(app, monitor))
    assert monitor.load.value == 0.0
    assert monitor.load.requests.value == 1


def test_a_request_that_is_cancelled_is_no_longer_in_flight(monitor):
    async def app(_scope, _receive, _send):
        await asyncio.Event().wait()

    async def main():
        request = asyncio.create_task(MemoryMonitorMiddleware(app, monitor)(HTTP, None, ignore))
        await asyncio.sleep(0)
        assert monitor.load.value == 1.0
        request.cancel()
        await asyncio.wait([request])

    asyncio.run(main())
    assert monitor.load.value == 0.0


def test_a_scope_that_nobody_knows_is_passed_on_and_not_counted(monitor):
    passed = []

    async def app(scope, receive, send):
        passed.append((scope, receive, send))

    scope, receive = {"type": "lambda.event"}, told()
    run(MemoryMonitorMiddleware(app, monitor), scope, receive)
    assert passed == [(scope, receive, ignore)]
    assert monitor.load.requests.value is None
    assert not monitor.running


def test_messages_are_passed_on_as_they_are(monitor):
    answers, received = [], []

    async def send(message):
        answers.append(message)

    async def app(scope, receive, send):
        scope["state"] = "written to"
        received.append(await receive())
        await send({"type": "http.response.body", "body": b"x"})

    scope = {"type": "http"}
    for unit in ("requests", "bytes"):
        run(MemoryMonitorMiddleware(app, monitor, unit=unit), scope, told(body(b"abc")), send)
    assert received == [body(b"abc")] * 2
    assert answers == [{"type": "http.response.body", "body": b"x"}] * 2
    assert scope["state"] == "written to"


# --- in bytes -------------------------------------------------------------------------------------


def test_bodies_count_as_far_as_they_are_received_and_one_for_the_request(monitor):
    seen = []

    async def app(_scope, receive, _send):
        seen.append(monitor.load.value)
        while (await receive()).get("more_body"):
            seen.append(monitor.load.value)
        seen.append(monitor.load.value)

    scope = {"type": "http", "headers": [(b"content-length", b"99999999")]}
    receive = told(
        body(b"x" * 100, more=True), body(b"y" * 50, more=True), {"type": "http.request"}
    )
    run(MemoryMonitorMiddleware(app, monitor, "bytes"), scope, receive)
    assert seen == [1.0, 101.0, 151.0, 151.0]
    assert monitor.load.value == 0.0


def test_of_a_websocket_the_newest_message_counts(monitor):
    seen = []

    async def app(_scope, receive, _send):
        for _ in range(5):
            await receive()
            seen.append(monitor.load.value)

    receive = told(
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": b"x" * 10},
        {"type": "websocket.receive", "text": "y" * 4, "bytes": None},
        {"type": "websocket.receive", "text": None},
        {"type": "websocket.disconnect"},
    )
    run(MemoryMonitorMiddleware(app, monitor, "bytes"), {"type": "websocket"}, receive)
    assert seen == [1.0, 11.0, 5.0, 1.0, 1.0]
    assert monitor.load.value == 0.0


def test_bytes_of_a_request_that_fails_are_no_longer_in_flight(monitor):
    async def app(_scope, receive, _send):
        await receive()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(MemoryMonitorMiddleware(app, monitor, "bytes"), receive=told(body(b"x" * 100)))
    assert monitor.load.value == 0.0


# --- starting and stopping the monitor ------------------------------------------------------------


def test_the_monitor_runs_from_the_end_of_start_up_to_shutdown(monitor):
    seen = []

    async def send(message):
        seen.append((message["type"], monitor.running))

    async def app(scope, receive, send):
        seen.append(("starting", monitor.running))
        await lifespan_app(scope, receive, send)

    run(MemoryMonitorMiddleware(app, monitor), {"type": "lifespan"}, told(*LIFESPAN), send)
    assert seen == [
        ("starting", False),
        ("lifespan.startup.complete", True),
        ("lifespan.shutdown.complete", False),
    ]
    assert monitor.load.value is None, "a lifespan is no request"


def test_it_can_start_up_again(monitor):
    middleware = MemoryMonitorMiddleware(lifespan_app, monitor)
    for _ in range(2):
        run(middleware, {"type": "lifespan"}, told(*LIFESPAN))
        assert not monitor.running


def test_a_start_up_that_fails_starts_no_monitor(monitor):
    async def app(_scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    run(MemoryMonitorMiddleware(app, monitor), {"type": "lifespan"}, told(*LIFESPAN))
    assert not monitor.running


def test_an_application_without_lifespan_has_its_monitor_from_the_first_request_on(monitor):
    async def app(scope, _receive, _send):
        if scope["type"] != "http":
            raise NotImplementedError
        assert monitor.running

    middleware = MemoryMonitorMiddleware(app, monitor)
    with pytest.raises(NotImplementedError):
        run(middleware, {"type": "lifespan"}, told(*LIFESPAN))
    assert not monitor.running
    run(middleware)
    assert monitor.running


def test_a_monitor_that_runs_already_is_somebody_elses_to_stop(monitor):
    monitor.start()
    run(MemoryMonitorMiddleware(lifespan_app, monitor), {"type": "lifespan"}, told(*LIFESPAN))
    assert monitor.running


def test_a_monitor_that_was_stopped_by_hand_stays_stopped(monitor):
    async def app(_scope, _receive, _send):
        pass

    middleware = MemoryMonitorMiddleware(app, monitor)
    run(middleware)
    monitor.stop()
    run(middleware)
    assert not monitor.running


def test_a_service_goes_on_where_its_monitor_cannot_start(monitor, monkeypatch, caplog):
    def fail():
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(monitor, "start", fail)

    async def app(_scope, _receive, _send):
        pass

    middleware = MemoryMonitorMiddleware(app, monitor)
    with caplog.at_level(logging.ERROR):
        run(middleware)
        run(middleware)
    assert monitor.load.requests.value == 2
    assert caplog.text.count("the memory monitor could not start") == 1


def test_without_a_monitor_it_has_one_of_its_own():
    middleware = MemoryMonitorMiddleware(lifespan_app)
    assert isinstance(middleware.monitor, MemoryMonitor)
    assert not middleware.monitor.running


# --- wrong arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"app": "main:app"}, "app must be an ASGI application"),
        ({"monitor": object()}, "monitor must be a MemoryMonitor or None"),
        ({"unit": "tokens"}, "unit must be one of 'requests', 'bytes'"),
    ],
)
def test_a_wrong_argument_is_told_by_name(arguments, words):
    with pytest.raises(ConfigError, match=words):
        MemoryMonitorMiddleware(**({"app": lifespan_app} | arguments))
