"""The application of test_gunicorn.py, for WSGI and for ASGI: it leaks, and it starts when told.

One worker leaks, the first that is asked to, as the file LEAKER says: a second one over its limit
would be replaced as well, whenever that is.
Workers that start while the file in GATE exists wait until it is gone. What they do is written into
gunicorn's own log, so that its lines are in one order for all processes.
"""

from __future__ import annotations

import asyncio
import os
import time

GATE = os.environ["GATE"]
LOG = os.environ["LOG"]
LEAKER = f"{GATE}.leaker"
LEAK_BYTES = 8 * 2**20
kept: list[bytes] = []


def tell_start() -> None:
    with open(LOG, "ab", buffering=0) as file:
        file.write(f"application of {os.getpid()} started\n".encode())


def answer(path: str) -> bytes:
    if path == "/leak" and is_leaker():
        kept.append(os.urandom(LEAK_BYTES))
    return str(os.getpid()).encode()


def is_leaker() -> bool:
    try:
        os.close(os.open(LEAKER, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return bool(kept)
    return True


def make_wsgi():
    """A factory, which gunicorn calls in each worker."""
    while os.path.exists(GATE):
        time.sleep(0.02)
    tell_start()

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer(environ["PATH_INFO"])]

    return application


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        while os.path.exists(GATE):
            await asyncio.sleep(0.02)
        tell_start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
