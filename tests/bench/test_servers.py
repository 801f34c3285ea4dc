"""Server processes of benchmarks: started, awaited, loaded, stopped; here with a tiny stand-in."""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import servers

STAND_IN = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200 if self.path == "/ready" else 404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = body["input"]
        data = [{"embedding": [float(len(text))]} for text in texts]
        self.answer({"bad": 400, "later": 429}.get(texts[0], 200), {"data": data})

    def answer(self, status, body):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        if status == 429:
            self.send_header("retry-after-ms", "30")
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def server() -> Iterator[servers.Server]:
    port = servers.free_port()
    command = [sys.executable, "-c", STAND_IN, str(port)]
    with servers.running(command, port, "/ready") as running:
        yield running


def test_server_is_ready_when_its_path_answers_and_gone_afterwards() -> None:
    port = servers.free_port()
    with servers.running([sys.executable, "-c", STAND_IN, str(port)], port, "/ready") as server:
        assert server.ready_s > 0.0
        assert server.resident_bytes() > 1 << 20
        pid = server.process.pid
    assert not psutil.pid_exists(pid)


def test_server_that_dies_is_an_error_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model here')"]
    with (
        pytest.raises(servers.ServerError, match="no model here"),
        servers.running(command, servers.free_port(), "/ready"),
    ):
        pass


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(os.environ["CHILD"], "w").write(str(child.pid))
time.sleep(60)
"""


def test_server_that_does_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "child"
    command = [sys.executable, "-c", STUBBORN]
    with servers.running_until_stopped(
        command, 1, lambda: path.exists() and path.read_text() != "", {"CHILD": str(path)}, 0.1
    ) as server:
        child = psutil.Process(int(path.read_text()))
    assert not psutil.pid_exists(server.process.pid)
    assert not child.is_running()


def test_vectors_come_back_in_order(server: servers.Server) -> None:
    connection = http.client.HTTPConnection(servers.HOST, server.port, timeout=10)
    with contextlib.closing(connection):
        assert servers.embed(connection, ["a", "bcd"]) == [[1.0], [3.0]]


def test_error_of_the_server_is_not_counted_as_speed(server: servers.Server) -> None:
    with pytest.raises(servers.ServerError, match="HTTP 400"):
        servers.texts_per_s(server, 1, ["bad"], 1.0)


def test_client_that_is_told_to_come_again_waits_and_its_texts_do_not_count(
    server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(servers.time, "sleep", waits.append)
    assert servers.texts_per_s(server, 1, ["later"], 0.05) == 0.0
    assert waits[0] == 0.03


def test_every_request_has_a_latency(server: servers.Server) -> None:
    taken = servers.latencies_s(server, ["a"], 5)
    assert len(taken) == 5
    assert min(taken) > 0.0


def test_clients_send_until_the_time_is_over(server: servers.Server) -> None:
    assert servers.texts_per_s(server, 3, ["a", "b"], 0.05) > 0.0
