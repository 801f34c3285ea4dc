"""An ASGI application for the tests of memory: routes that take memory, in each way that there is.

Every answer is as `bench.recycle.answers` has it, so a load can be sent to any route.
"""

from __future__ import annotations

import asyncio
import os
import time
from urllib.parse import parse_qs

from bench.recycle.answers import answer_to

MIB = 2**20
_kept: list[object] = []
_started_at = time.monotonic()
_leaked = 0


def preload() -> bytes:
    """A model."""
    return os.urandom(MIB) * int(os.environ["APP_PRELOAD_MIB"])


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    await ACTIONS[scope["path"]](query)
    answer = answer_to(body, os.getpid())
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _lifespan(receive, send):
    await receive()
    if "APP_START_MIB" in os.environ:
        _keep(int(os.environ["APP_START_MIB"]))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _keep(mib):
    _kept.append(os.urandom(MIB) * mib)


async def leak(query):
    """In all, so much a second since the first request; so the load may be uneven."""
    global _started_at, _leaked
    if not _leaked:
        _started_at = time.monotonic()
    due = 1 + int((time.monotonic() - _started_at) * float(query["mib_per_s"]) * MIB)
    while _leaked < due:
        _kept.append(os.urandom(16) * 256)
        _leaked += 4096


async def keep(query):
    """So much at once; then sleep, or hang. The file `APP_CROSSED` has the time in between."""
    _keep(int(query["mib"]))
    if crossed := os.environ.get("APP_CROSSED"):
        with open(crossed, "w") as file:
            file.write(f"{time.monotonic():.6f} {os.getpid()}\n")
    await asyncio.sleep(float(query.get("sleep_s", "0")))
    time.sleep(float(query.get("block_s", "0")))


async def spike(query):
    """Much memory for a moment."""
    much = os.urandom(MIB) * int(query["mib"])
    await asyncio.sleep(float(query["seconds"]))
    assert len(much) == int(query["mib"]) * MIB


async def fragment(query):
    """Free memory that malloc keeps, because what lies at its end is in use."""
    parts = [os.urandom(16) * 256 for _ in range(int(query["mib"]) * MIB // 4096)]
    _kept.append(parts[-1])


async def nothing(query):
    """Only an answer."""


ACTIONS = {
    "/leak": leak,
    "/keep": keep,
    "/spike": spike,
    "/fragment": fragment,
    "/": nothing,
    "/nothing": nothing,
}
