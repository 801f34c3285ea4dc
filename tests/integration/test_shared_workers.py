"""The workers of a real uvicorn share a breaker, and so does a worker that comes later."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="shared memory is for Linux"
)

WORKERS = 8
THRESHOLD = 5
APPLICATION = f"""
import asyncio, os
from memguard_native import CircuitBreaker, CircuitOpenError

breaker = CircuitBreaker("dependency", {THRESHOLD}, scope="host")

@breaker
async def dependency():
    raise ConnectionError("down")

async def app(scope, receive, send):
    assert scope["type"] == "http"
    try:
        await dependency()
    except CircuitOpenError:
        status = 503
    except ConnectionError:
        status = 502
    await asyncio.sleep(0.02)  # so that others accept as well
    await send({{"type": "http.response.start", "status": status, "headers": []}})
    await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})
"""


def ask(port: int) -> tuple[int, int]:
    """The status, and the process that answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, int(response.read())
    finally:
        connection.close()


def ask_many(port: int, times: int) -> list[tuple[int, int]]:
    with ThreadPoolExecutor(WORKERS) as threads:
        return list(threads.map(lambda _: ask(port), range(times)))


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_eight_workers_of_uvicorn_have_one_breaker_that_outlives_them(tmp_path):
    (tmp_path / "served.py").write_text(APPLICATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "uvicorn", "served:app", "--workers", str(WORKERS)),
        *("--port", str(port), "--lifespan", "off", "--log-level", "error"),
    ]
    with subprocess.Popen(command, cwd=tmp_path) as server:
        try:
            until(lambda: listens(port))
            first = ask_many(port, 40)
            assert [status for status, _ in first].count(502) == THRESHOLD
            assert {status for status, _ in first} == {502, 503}
            seen = {pid for _, pid in first}
            until(lambda: seen.update(pid for _, pid in ask_many(port, 20)) or len(seen) > 1)
            for pid in seen:
                os.kill(pid, signal.SIGKILL)

            def answer_of_a_successor() -> tuple[int, int] | None:
                try:
                    answer = ask(port)
                except (OSError, http.client.HTTPException):
                    return None
                return None if answer[1] in seen else answer

            answers = []
            until(lambda: answers.append(answer_of_a_successor()) or answers[-1] is not None)
            assert answers[-1][0] == 503, "a new worker does not know that the circuit is open"
        finally:
            server.terminate()
