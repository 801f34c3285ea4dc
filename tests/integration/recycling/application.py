"""An ASGI application for the tests of recycling: what a route does is told by its name.

Every answer is JSON and has the process number of the worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from urllib.parse import parse_qs

from memguard_native.recycling import worker

_leak: list[bytes] = []
_started = {"startups": 0}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(receive, send)
    else:
        await _http(scope, receive, send)


async def _lifespan(receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await _start_up(send)
        else:
            _log("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _start_up(send):
    """What the environment says: sleep, fail, end, fail if a file is there."""
    await asyncio.sleep(float(os.environ.get("APP_START_SECONDS", "0")))
    marker = os.environ.get("APP_FAIL_IF")
    if marker and os.path.exists(marker):
        how = open(marker).read()  # noqa: SIM115
        if how == "exit 0":
            os._exit(0)
        if how == "sleep":
            await asyncio.sleep(1000)
        await send({"type": "lifespan.startup.failed", "message": "told to fail"})
        return
    _log("startup")
    _started["startups"] += 1
    await send({"type": "lifespan.startup.complete"})


def _log(what):
    path = os.environ.get("APP_LOG")
    if path:
        with open(path, "a") as file:
            file.write(f"{what} {os.getpid()} {time.monotonic():.6f}\n")


async def _http(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    action = ACTIONS.get(scope["path"])
    if action is None:
        await _answer(send, 404, {"error": "no such route"})
        return
    told = await action(query, body)
    await _answer(send, 200, {"pid": os.getpid(), **(told or {})})


async def _answer(send, status, told):
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": f"{os.getpid()} {message.get('text')}"})


async def echo(query, body):
    return {"length": len(body)}


async def sleep(query, body):
    await asyncio.sleep(float(query["seconds"]))


async def block(query, body):
    """The event loop hangs; the GIL is free."""
    time.sleep(float(query["seconds"]))


async def hold_gil(query, body):
    """Neither the loop nor another thread runs: one call of C that does not let go."""
    until = time.monotonic() + float(query["seconds"])
    while time.monotonic() < until:
        sum(range(3_000_000))


async def leak(query, body):
    _leak.append(os.urandom(1024) * (int(query["bytes"]) // 1024))


async def spike(query, body):
    """Much memory for a moment."""
    much = bytearray(os.urandom(1024) * (int(query["bytes"]) // 1024))
    await asyncio.sleep(float(query.get("seconds", "0")))
    return {"held": len(much)}


async def start_child(query, body):
    """A process as an MCP stdio server is one: it outlives its parent if nobody ends it."""
    command = ["sleep", "1000"]
    if query.get("stubborn"):
        command = ["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"]
    has_session = bool(query.get("session"))
    child = subprocess.Popen(command, start_new_session=has_session)
    return {"child": child.pid}


async def count(query, body):
    worker.count(inputs=int(query.get("inputs", "0")), tokens=int(query.get("tokens", "0")))


async def ask(query, body):
    worker.ask()


async def about(query, body):
    return {"is_supervised": worker.is_supervised(), **_started}


async def talk_nonsense(query, body):
    """On the channel to the supervisor, which in a spawned worker has this number."""
    os.write(3, b"x")


ACTIONS = {
    "/echo": echo,
    "/sleep": sleep,
    "/block": block,
    "/hold-gil": hold_gil,
    "/leak": leak,
    "/spike": spike,
    "/start-child": start_child,
    "/count": count,
    "/ask": ask,
    "/about": about,
    "/talk-nonsense": talk_nonsense,
}
