"""What the original's configuration does to a real process: it ends it, and the warning says so."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time

LIMIT = 5
PROGRAM = f"""
import socket, sys, uvicorn
from memguard_native.recycling.uvicorn import uvicorn_config

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 204, "headers": []}})
        await send({{"type": "http.response.body"}})

uvicorn.run(**uvicorn_config(app, limit_max_requests={LIMIT}, port=int(sys.argv[1])))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def wait_until_listening(port: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("uvicorn does not listen")


def test_the_limit_ends_the_process_with_exit_code_0_as_the_warning_says():
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until_listening(port, process)
            assert [get(port) for _ in range(LIMIT)] == [204] * LIMIT
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, "on-failure of systemd would not fire"
    assert f"RecyclingWarning: uvicorn ends this process with exit code 0 after {LIMIT}" in stderr
