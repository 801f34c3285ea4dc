"""Answers as `bench.recycle.answers` does, after the time that a request asks for.

Two faults can be told by files that $APP_FAULTS, a directory, has. The first process that takes in
a connection of another worker and finds the file removes it, and kills itself there:

    adopter-received  it has the descriptor, and has not said that the connection is its own
    adopter-accepted  it has just said so, and has read nothing
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from urllib.parse import parse_qs

from bench.recycle.answers import answer_to

from memguard_native.recycling import server

_FAULTS = os.environ.get("APP_FAULTS")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = parse_qs(scope["query_string"])
    if b"seconds" in query:
        await asyncio.sleep(float(query[b"seconds"][0]))
    answer = answer_to(body, os.getpid())
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _live(receive, send):
    await receive()
    await asyncio.sleep(float(os.environ.get("APP_START_SECONDS", "0")))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _die_if_told(what):
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(_FAULTS, what))
        os.kill(os.getpid(), signal.SIGKILL)


def _with_faults(take_in):
    async def faulty(descriptor, accepted, make_protocol):
        def told():
            accepted()
            _die_if_told("adopter-accepted")

        _die_if_told("adopter-received")
        await take_in(descriptor, told, make_protocol)

    return faulty


if _FAULTS is not None:
    server.take_in = _with_faults(server.take_in)
