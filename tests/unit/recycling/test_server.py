"""`RecyclingServer` on a real loop: start, counts, taking in, lingering, and the end."""

from __future__ import annotations

import asyncio
import functools
import logging
import select
import signal
import socket
import struct

import pytest
import uvicorn
from tests.unit.recycling.served import (
    REQUEST,
    App,
    Served,
    answer_of,
    connection_of,
    serving,
    until,
)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

both = pytest.mark.parametrize("http", ["httptools", "h11"])


# --- start and end --------------------------------------------------------------------------


def test_the_start_up_is_awaited_before_the_first_connection_is_taken():
    async def main():
        served = Served(App(), "httptools")
        early = socket.create_connection(("127.0.0.1", served.port))
        early.sendall(REQUEST)
        seen = []
        served.at_startup = lambda: seen.append((list(served.app.lifespan), served.counted))
        task = asyncio.ensure_future(served.server.serve([served.listener]))
        await until(lambda: served.counted)
        assert seen == [(["startup"], 0)]
        early.close()
        served.drain()
        await task
        served.close()

    asyncio.run(main())


def test_an_application_that_does_not_start_ends_with_the_exit_code_of_uvicorn():
    app = App()
    app.fails_to_start = True
    served = Served(app, "httptools")
    with pytest.raises(SystemExit) as ended:
        asyncio.run(served.server.serve([served.listener]))
    assert ended.value.code == 3
    served.close()


def test_a_failed_warm_up_shuts_the_application_down_and_is_raised():
    served = Served(App(), "httptools")

    def fail():
        raise LookupError("no model")

    served.at_startup = fail
    with pytest.raises(LookupError):
        asyncio.run(served.server.serve([served.listener]))
    assert served.app.lifespan == ["startup", "shutdown"]
    served.close()


def test_a_drain_that_is_asked_before_the_start_begins_after_it():
    async def main():
        served = Served(App(), "httptools")
        served.drain()
        await asyncio.wait_for(served.server.serve([served.listener]), 10)
        assert served.app.lifespan == ["startup", "shutdown"]
        served.close()

    asyncio.run(main())


def test_no_signal_handler_is_installed():
    async def main():
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        async with serving():
            assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before

    asyncio.run(main())


def test_the_first_answer_has_a_date():
    async def main():
        async with serving() as (served, _):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            assert b"\r\ndate: " in await answer_of(reader)
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_is_accepted_while_the_listener_closes_is_served(turns):
    """asyncio accepts in one turn and makes the transport in the next; the drain lies between."""

    async def main():
        async with serving() as (served, task):
            client = socket.create_connection(("127.0.0.1", served.port))
            client.sendall(REQUEST)
            drain = served.drain
            for _ in range(turns):
                drain = functools.partial(asyncio.get_running_loop().call_soon, drain)
            asyncio.get_running_loop().call_soon(drain)
            await task
            client.setblocking(False)
            # Either it was accepted, or it still waits at the listener for the next worker.
            accepted = served.server.handed_over == 1
            waiting = not accepted and bool(select.select([served.next_owner], [], [], 0)[0])
            assert accepted != waiting
            client.close()

    asyncio.run(main())


@both
def test_a_task_that_does_not_end_at_the_deadline_is_cancelled(http, monkeypatch, caplog):
    monkeypatch.setattr("memguard_native.recycling.server._AFTER_DEADLINE", 0.05)

    class Endless(App):
        async def answer(self, scope, receive, send):
            try:
                await asyncio.Event().wait()
            finally:
                self.lifespan.append("cancelled")

    async def main():
        async with serving(Endless(), http) as (served, task):
            _, writer = await served.connect()
            writer.write(REQUEST)
            await until(lambda: served.server.in_flight)
            served.drain(seconds=0.0)
            await asyncio.wait_for(task, 10)
            assert served.app.lifespan == ["startup", "cancelled", "shutdown"]
            assert served.server.aborted == 1
            writer.close()

    asyncio.run(main())


def test_a_task_that_will_not_be_cancelled_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr("memguard_native.recycling.server._AFTER_DEADLINE", 0.05)
    released = []

    class Stubborn(App):
        async def answer(self, scope, receive, send):
            while not released:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    released.append(len(released) >= 2)

    async def main():
        async with serving(Stubborn()) as (served, task):
            _, writer = await served.connect()
            writer.write(REQUEST)
            await until(lambda: served.server.in_flight)
            served.drain(seconds=0.0)
            await asyncio.wait_for(task, 10)
            assert served.app.lifespan[-1] == "shutdown"
            writer.close()

    asyncio.run(main())


def test_a_background_task_is_waited_for_while_its_connection_is_handed_over():
    class Tail(App):
        async def answer(self, scope, receive, send):
            await super().answer(scope, receive, send)
            await self.may_end.wait()
            self.lifespan.append("tail")

    async def main():
        app = Tail()
        app.may_end = asyncio.Event()
        async with serving(app) as (served, task):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            await answer_of(reader)
            served.drain()
            await until(lambda: served.server.handed_over == 1)
            assert served.server.in_flight == 1
            app.may_end.set()
            await asyncio.wait_for(task, 10)
            assert app.lifespan == ["startup", "tail", "shutdown"]
            writer.close()

    asyncio.run(main())


# --- counts ---------------------------------------------------------------------------------


@both
def test_each_answer_counts_once_whatever_its_way(http):
    async def main():
        async with serving(http=http) as (served, _):
            reader, writer = await served.connect()
            for data in (REQUEST, REQUEST * 3, REQUEST[:9], REQUEST[9:-1], REQUEST[-1:]):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0.005)
            for _ in range(5):
                await answer_of(reader)
            assert (served.server.requests, served.counted) == (5, 5)
            assert (served.server.connections, served.server.in_flight) == (1, 0)
            writer.close()

    asyncio.run(main())


@both
@pytest.mark.parametrize("root_path", ["", "/api"])
def test_health_routes_between_pipelined_requests_do_not_count(http, root_path):
    async def main():
        async with serving(http=http, root_path=root_path) as (served, _):
            reader, writer = await served.connect()
            health = REQUEST.replace(b"POST /", b"POST /metrics")
            writer.write(health + REQUEST + health + REQUEST + REQUEST + health)
            for _ in range(6):
                await answer_of(reader)
            assert (served.server.requests, served.counted) == (3, 3)
            writer.close()

    asyncio.run(main())


# --- the timer of a kept connection -----------------------------------------------------------


@both
def test_a_connection_that_is_reset_cancels_its_timer(http):
    """uvicorn leaves it, and with it the connection's last request, until the timer fires."""

    async def main():
        async with serving(http=http) as (served, _):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            await answer_of(reader)
            connection = connection_of(served)
            timer = connection.timeout_keep_alive_task
            option = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            writer.transport.abort()
            await until(lambda: served.server.connections == 0)
            assert timer.cancelled()
            assert connection.timeout_keep_alive_task is None

    asyncio.run(main())


@both
def test_a_connection_that_is_handed_over_leaves_no_timer(http):
    async def main():
        async with serving(http=http) as (served, task):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            await answer_of(reader)
            timer = connection_of(served).timeout_keep_alive_task
            served.drain()
            await until(lambda: served.server.handed_over)
            assert timer.cancelled()
            await task
            writer.close()

    asyncio.run(main())


# --- where nothing can be handed over ---------------------------------------------------------


class WithoutHook(HttpToolsProtocol):
    """As of a uvicorn that calls its hook otherwise."""

    def on_message_complete(self):
        super().on_message_complete()
        self.on_message_begin()


def test_a_uvicorn_without_a_hook_lingers_says_so_and_still_counts(caplog):
    async def main():
        async with serving(http=WithoutHook) as (served, task):
            assert served.server.tier == "linger"
            reader, writer = await served.connect()
            writer.write(REQUEST)
            assert b"connection:" not in await answer_of(reader)
            served.drain("handover")
            writer.write(REQUEST)
            assert b"\r\nconnection: close\r\n" in await answer_of(reader)
            assert await reader.read() == b""
            await asyncio.wait_for(task, 10)
            assert (served.server.requests, served.server.handed_over) == (2, 0)
            writer.close()

    with caplog.at_level(logging.WARNING, "memguard_native"):
        asyncio.run(main())
    assert f"uvicorn {uvicorn.__version__} has no WithoutHook" in caplog.text


def test_idle_connections_without_a_hook_are_closed_when_the_time_to_linger_is_over():
    async def main():
        async with serving(http=WithoutHook) as (served, task):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            await answer_of(reader)
            served.drain("linger", linger=0.0)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            await asyncio.wait_for(task, 10)
            assert (served.server.lingered, served.server.aborted) == (1, 0)
            writer.close()

    asyncio.run(main())


class Held(App):
    """Begins its answer, and goes on with it, when it is allowed to."""

    def __init__(self):
        super().__init__()
        self.may_begin = asyncio.Event()
        self.may_end = asyncio.Event()

    async def answer(self, scope, receive, send):
        await self.may_begin.wait()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"done"})


@both
def test_a_request_that_runs_when_lingering_begins_is_finished_and_told_to_be_the_last(http):
    async def main():
        app = Held()
        async with serving(app, http) as (served, task):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            await until(lambda: served.server.in_flight)
            served.drain("linger", linger=0.0)
            await asyncio.sleep(0.06)  # three quiet ticks are 0.03
            assert not task.done()
            app.may_begin.set()
            app.may_end.set()
            assert b"\r\nconnection: close\r\n" in await answer_of(reader)
            await asyncio.wait_for(task, 10)
            assert (served.server.lingered, served.server.aborted) == (1, 0)
            writer.close()

    asyncio.run(main())


@both
def test_a_connection_that_becomes_idle_after_the_time_to_linger_is_closed_at_once(http):
    async def main():
        app = Held()
        app.may_begin.set()
        async with serving(app, http) as (served, task):
            reader, writer = await served.connect()
            writer.write(REQUEST)
            assert b"connection:" not in (await reader.readuntil(b"\r\n\r\n")).lower()
            served.drain("linger", linger=0.0)
            await asyncio.sleep(0.02)
            assert served.server.connections == 1
            app.may_end.set()
            assert await asyncio.wait_for(reader.read(), 10) == b"done"
            await asyncio.wait_for(task, 10)
            assert served.server.aborted == 0
            writer.close()

    asyncio.run(main())


@both
def test_refusals_beyond_the_limit_of_concurrency_do_not_hold_up_a_drain(http):
    async def main():
        async with serving(http=http, limit_concurrency=1) as (served, task):
            _, silent = await served.connect()
            await until(lambda: served.server.connections == 1)
            reader, writer = await served.connect()
            writer.write(REQUEST)
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503")
            served.drain()
            await asyncio.wait_for(task, 10)
            assert (served.server.handed_over, served.server.aborted) == (1, 0)
            silent.close()
            writer.close()

    asyncio.run(main())
