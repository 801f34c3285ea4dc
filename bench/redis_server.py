"""A redis-server of our own: on a free port of loopback, and it keeps nothing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator

from bench import servers

EXECUTABLE = "redis-server"
ANSWER_TIMEOUT_S = 5.0


def is_installed() -> bool:
    return shutil.which(EXECUTABLE) is not None


@contextlib.contextmanager
def running() -> Iterator[servers.Server]:
    """Start one, wait until it answers, stop it at exit. Raises ServerError."""
    executable = shutil.which(EXECUTABLE)
    if executable is None:
        raise servers.ServerError("there is no redis-server: apt-get install redis-server")
    port = servers.free_port()
    with tempfile.TemporaryDirectory(prefix="memguard-redis-") as folder:
        options = {
            "bind": servers.HOST,
            "port": str(port),
            "dir": folder,
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        command = [executable, *(word for name in options for word in (f"--{name}", options[name]))]
        with servers.running_until_stopped(command, port, lambda: _answers(port)) as server:
            yield server


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((servers.HOST, port), ANSWER_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64) == b"+PONG\r\n"
    except OSError:
        return False
