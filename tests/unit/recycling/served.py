"""A `RecyclingServer` in the test's own loop, on a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager

import uvicorn

from memguard_native.recycling.server import RecyclingServer

REQUEST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody"


class App:
    """Answers everything; `lifespan` is what happened to it."""

    def __init__(self):
        self.lifespan = []
        self.fails_to_start = False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await self.answer(scope, receive, send)
            return
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            self.lifespan.append(kind)
            outcome = "failed" if self.fails_to_start else "complete"
            await send({"type": f"lifespan.{kind}.{outcome}"})

    async def answer(self, scope, receive, send):
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})


class Served:
    """A server on a port of the kernel's choice, and what it called.

    `next_owner` is the listener as the next worker has it.
    """

    def __init__(self, app, http, **options):
        self.app = app
        self.handed_out = []
        self.has_room = True
        self.counted = 0
        self.at_startup = lambda: None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.next_owner = self.listener.dup()
        self.port = self.listener.getsockname()[1]
        options = {"timeout_keep_alive": 30, "lifespan": "on", **options}
        config = uvicorn.Config(app, http=http, log_config=None, access_log=False, **options)
        self.server = RecyclingServer(
            config, hand_out=self._hand_out, on_startup=self._startup, on_request=self._count
        )

    def _hand_out(self, descriptor):
        if self.has_room:
            self.handed_out.append(os.dup(descriptor))
        return self.has_room

    async def _startup(self):
        self.at_startup()

    def _count(self):
        self.counted += 1

    def drain(self, tier="handover", linger=60.0, seconds=60.0):
        deadline = asyncio.get_running_loop().time() + seconds
        self.server.drain(tier=tier, linger=linger, deadline=deadline)

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    def close(self):
        self.listener.close()
        self.next_owner.close()
        for descriptor in self.handed_out:
            os.close(descriptor)


@asynccontextmanager
async def serving(app=None, http="httptools", **options):
    """The server and the task that it runs in; it is drained at the end if it was not before."""
    served = Served(app or App(), http, **options)
    task = asyncio.ensure_future(served.server.serve([served.listener]))
    try:
        while not served.server.started and not task.done():
            await asyncio.sleep(0.001)
        yield served, task
        if not task.done():
            served.drain("linger", linger=0.0, seconds=0.0)
        await asyncio.wait_for(task, 10)
    finally:
        served.close()


async def answer_of(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert await reader.readexactly(4) == b"done"
    return head.lower()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def connection_of(served):
    (connection,) = served.server.server_state.connections
    return connection
