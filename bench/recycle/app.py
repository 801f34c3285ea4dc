"""The app that all servers of a comparison serve: raw ASGI, the same start-up and work in each.

The environment says how it behaves, as `servers.running` writes it: seconds that a start-up takes;
turns of a loop that a POST does, so that the work is the same where processors are short; the size
of a model in MB; and a file in which every process notes when it is ready, and when it is asked to
stop.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.recycle.answers import answer_to

STARTUP, CPU_TURNS, MODEL_MB, LIVES = (
    "BENCH_APP_STARTUP",
    "BENCH_APP_CPU_TURNS",
    "BENCH_APP_MODEL_MB",
    "BENCH_APP_LIVES",
)
# What an entry of the vocabulary takes: a text, a list of two numbers, a place in the dictionary.
_ENTRY_BYTES = 270
# Of a model's bytes, how many are objects of Python, which a process copies by counting references.
_VOCABULARY_SHARE = 0.1

_turns = int(os.environ.get(CPU_TURNS, "0"))
_model: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["method"] == "POST":
        work(_turns)
    answer = answer_to(body, os.getpid())
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def work(turns: int) -> None:
    for _ in range(turns):
        pass


def load_model() -> None:
    """Build the model once: nine tenths plain bytes, one tenth a vocabulary of Python's objects."""
    size = int(os.environ.get(MODEL_MB, "0")) * 1_000_000
    if _model or not size:
        return
    entries = int(size * _VOCABULARY_SHARE / _ENTRY_BYTES)
    weights = b"\x5a" * int(size * (1 - _VOCABULARY_SHARE))
    _model.extend((weights, {f"token {number}": [number, 0.5] for number in range(entries)}))


def preloaded() -> Any:
    """The app with its model, for servers that take no hook but call a factory before they fork."""
    load_model()
    return app


async def _live(receive: Any, send: Any) -> None:
    await receive()
    load_model()
    time.sleep(float(os.environ.get(STARTUP, "0")))
    _note("ready")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    _note("stopping")
    await send({"type": "lifespan.shutdown.complete"})


def _note(what: str) -> None:
    path = os.environ.get(LIVES)
    if path:
        with Path(path).open("a") as file:  # one write, which no other process's can divide
            file.write(f"{what} {os.getpid()} {time.monotonic():.6f}\n")
