"""How many requests does a server answer whose memory is monitored, beside one whose is not?

Real uvicorn processes, loaded in turns by 8 connections over loopback; an application of
nothing but an answer, and a FastAPI route. The middleware counts each request, and the monitor
samples every second, 60 times as often as by default. The goal is 0.995 of the throughput. It is
reported and not judged, because two equal servers differ by more on a busy machine: the second
unmonitored one shows by how much. The processor time of a request, as the kernel counts it for the
server, is steadier.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import time
from collections.abc import Iterator

import psutil

from bench import rivals, servers
from bench.harness import Bench

GROUP = "sampler"

THROUGHPUT, COST = "requests/s", "us of processor time per request"
THROUGHPUT_RATIO = "throughput, of unmonitored"
COST_RATIO = "processor time, of unmonitored"
CONNECTIONS = 8
REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"
MONITORED_MARK = ", monitored"
MONITORED = {"requests": ["--monitored"], "bytes": ["--monitored", "bytes"]}


def suite(b: Bench) -> None:
    rounds, seconds = (5, 0.5) if b.effort.quick else (25, 1.0)
    for framework, title in (("none", "bare ASGI"), ("fastapi", "FastAPI")):
        if framework == "fastapi" and rivals.version("fastapi") is None:
            b.absent(title, "not installed: fastapi", "fastapi")
            continue
        with contextlib.ExitStack() as stack:
            running = {
                title: stack.enter_context(_server(framework)),
                f"{title}, again": stack.enter_context(_server(framework)),
                title + MONITORED_MARK: stack.enter_context(_server(framework, "requests")),
                f"{title}{MONITORED_MARK} by bytes": stack.enter_context(
                    _server(framework, "bytes")
                ),
            }
            _measure(b, title, running, rounds, seconds)


def _server(
    framework: str, unit: str | None = None
) -> contextlib.AbstractContextManager[servers.Server]:
    port = servers.free_port()
    command = [sys.executable, "-m", "bench.monitored_app", "--port", str(port)]
    command += ["--framework", framework, *MONITORED.get(unit or "", [])]
    return servers.running(command, port, "/")


def _measure(
    b: Bench, title: str, running: dict[str, servers.Server], rounds: int, seconds: float
) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    with contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(connections(server.port, CONNECTIONS))
            for name, server in running.items()
        }
        for name, server in running.items():
            load(server, clients[name], 0.2)  # warms the code
        for done in range(rounds):
            b.progress(f"{title}, round {done + 1} of {rounds}")
            for name, server in running.items():
                found[name].append(load(server, clients[name], seconds))
    alone = found[title]
    for name, values in found.items():
        package = None if MONITORED_MARK not in name else "memguard-native"
        b.record(name, THROUGHPUT, statistics.median(v[0] for v in values), package=package)
        b.record(name, COST, statistics.median(v[1] for v in values) * 1e6)
        for metric, i in ((THROUGHPUT_RATIO, 0), (COST_RATIO, 1)):
            pairs = zip(values, alone, strict=True)
            b.record(name, metric, statistics.median(mine[i] / other[i] for mine, other in pairs))


@contextlib.contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((servers.HOST, port), timeout=20))
            for _ in range(count)
        ]


def load(
    server: servers.Server, clients: list[socket.socket], seconds: float
) -> tuple[float, float]:
    """Requests per second, and processor seconds that one took the server.

    All connections have a request under way at once, so that the server always has something to do.
    """
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for client in clients:
            client.sendall(REQUEST)
        for client in clients:
            _read_answer(client)
        done += len(clients)
    taken = time.perf_counter() - start
    spent = sum(process.cpu_times()[:2]) - before
    return done / taken, spent / done


def _read_answer(client: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        part = client.recv(65536)
        if not part:
            raise servers.ServerError("the server closed the connection")
        answer += part
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise servers.ServerError(f"the server answered {answer[:200].decode(errors='replace')}")
