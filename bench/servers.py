"""Real server processes for benchmarks, and the clients that load them.

Clients are threads with a kept connection each: they spend most of their time waiting, and cost
both servers of a comparison the same.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 60.0
ROOT = Path(__file__).resolve().parents[1]
# One compute thread each: two busy servers that spin on all cores measure each other.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


class ServerError(RuntimeError):
    """A server did not start or answered with an error; the text has its last words."""


class OverloadedError(ServerError):
    """The server has no room for the request now and says when to come again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, how long it took to be ready."""

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float

    def resident_bytes(self) -> int:
        """Resident memory of the process and its children."""
        process = psutil.Process(self.process.pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def running(
    command: Sequence[str], port: int, ready_path: str
) -> contextlib.AbstractContextManager[Server]:
    """Start `command`, wait until `ready_path` answers 200, stop it at exit."""
    return running_until_stopped(command, port, lambda: answers(port, ready_path))


@contextlib.contextmanager
def running_until_stopped(
    command: Sequence[str],
    port: int,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str] = MappingProxyType({}),
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> Iterator[Server]:
    """Start `command`, wait until it is ready, stop it and its children at exit.

    Raises ServerError: it ended or was not ready in time.
    """
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            while not is_ready():
                if process.poll() is not None or time.perf_counter() - start > START_TIMEOUT_S:
                    log.seek(0)
                    words = log.read().decode(errors="replace")[-2000:]
                    raise ServerError(f"{' '.join(command)} did not get ready: {words}")
                time.sleep(0.005)
            yield Server(process, port, time.perf_counter() - start)
        finally:
            _stop(process, stop_timeout_s)


def _stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """End it, and those of its family that it leaves behind."""
    family = _children(process)
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGSTOP)  # so that it starts no more of them meanwhile
        family += _children(process)
        process.kill()
        process.wait()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def answers(port: int, path: str) -> bool:
    """Whether a GET of the path is answered with 200 now."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def embed(connection: http.client.HTTPConnection, texts: Sequence[str]) -> list[list[float]]:
    """One request for vectors. Floats are asked for, because both servers can give those."""
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": texts, "encoding_format": "float"})
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/embeddings", body, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        message = f"HTTP {response.status}: {answer[:500].decode(errors='replace')}"
        if response.status == 429 and (wait_ms := response.getheader("retry-after-ms")):
            raise OverloadedError(message, float(wait_ms) / 1000)
        raise ServerError(message)
    return [item["embedding"] for item in json.loads(answer)["data"]]


def latencies_s(server: Server, texts: Sequence[str], requests: int) -> list[float]:
    """Seconds per request of one client that sends `texts` again and again."""
    with contextlib.closing(_connect(server)) as connection:
        taken = []
        for _ in range(requests):
            start = time.perf_counter()
            embed(connection, texts)
            taken.append(time.perf_counter() - start)
        return taken


def texts_per_s(server: Server, clients: int, texts: Sequence[str], seconds: float) -> float:
    """Texts answered per second while `clients` send `texts` for so long.

    A client that is told to come again later does so, as the openai client would.
    """
    start = time.perf_counter()
    end = start + seconds

    def client(_: int) -> int:
        done = 0
        with contextlib.closing(_connect(server)) as connection:
            while time.perf_counter() < end:
                try:
                    embed(connection, texts)
                except OverloadedError as refused:
                    time.sleep(refused.retry_after_s)
                else:
                    done += len(texts)
        return done

    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(client, range(clients)))
    return done / (time.perf_counter() - start)


def _connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(HOST, server.port, timeout=REQUEST_TIMEOUT_S)
