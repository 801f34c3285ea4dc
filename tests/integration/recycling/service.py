"""Two workers with one listener and a relay between them, and clients that see every byte."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.integration.recycling.zygote_program import receive_message, send_message

OLDEST = Path(sys.prefix) / "uvicorn-0.30.0"
"""The oldest uvicorn; `make .venv/.stamps/uvicorn-oldest` puts it there."""
SECONDS = 10.0
IDLE_DRAIN = 0.06
"""Seconds after which a drain has ended if nothing holds it up: three quiet ticks are 0.03."""


class Zygote:
    """The process that forks the workers; one serves all tests of a module."""

    def __init__(self, python_path: Path | None = None) -> None:
        assert python_path is None or python_path.is_dir(), f"no {python_path}: see the Makefile"
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).with_name("zygote_program.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(python_path or "")},
        )
        theirs.close()

    def close(self) -> None:
        self.channel.close()
        self.process.wait(SECONDS)

    def fork(self, settings: dict, listener: socket.socket) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # a few messages fill it
        send_message(self.channel, settings, [listener.fileno(), theirs.fileno()])
        theirs.close()
        answer, _ = receive_message(self.channel)
        return Worker(ours, answer["pid"])


class Worker:
    def __init__(self, control: socket.socket, pid: int) -> None:
        self.control = control
        self.pid = pid
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.stats: dict = {}
        self.is_stopped = False

    def drain(self, tier="handover", linger=6 * SECONDS, seconds=6 * SECONDS) -> None:
        send_message(
            self.control, {"kind": "drain", "tier": tier, "linger": linger, "seconds": seconds}
        )

    def wait_for_end(self) -> dict:
        assert self.ended.wait(SECONDS), "the drain did not end"
        return self.stats

    def stop(self) -> None:
        self.is_stopped = True
        os.kill(self.pid, signal.SIGSTOP)
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
            time.sleep(0.001)

    def proceed(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.is_stopped = False


class Service:
    """Workers of one kind, the newest of which gets what the others hand out."""

    def __init__(self, zygote: Zygote, *, loop: str, http: str, **options) -> None:
        self._zygote = zygote
        self._settings = {"loop": loop, "options": {"http": http, **options}}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self.unacknowledged: dict[int, int] = {}
        self._sequence = 0
        self._stopping = threading.Event()
        self._relay = threading.Thread(target=self._run, daemon=True)
        self._relay.start()
        self.problem: BaseException | None = None

    def start(self) -> Worker:
        worker = self.fork_heir()
        assert worker.ready.wait(SECONDS)
        return worker

    def fork_heir(self) -> Worker:
        """A worker that may not be ready yet, and gets what the others hand out."""
        worker = self._zygote.fork(self._settings, self.listener)
        self.workers.append(worker)
        return worker

    def client(self, context: ssl.SSLContext | None = None) -> Client:
        client = Client(self.listener.getsockname()[1], context)
        self.clients.append(client)
        return client

    def close(self) -> None:
        self._stopping.set()
        self._relay.join(SECONDS)
        for worker in self.workers:
            if worker.is_stopped:
                worker.proceed()
            worker.control.close()  # ends it
        for client in self.clients:
            client.socket.close()
        self.listener.close()
        for descriptor in self.unacknowledged.values():
            os.close(descriptor)
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                open_workers = {w.control: w for w in self.workers if not w.ended.is_set()}
                readable, _, _ = select.select(list(open_workers), [], [], 0.005)
                for control in readable:
                    self._handle(open_workers[control])
        except BaseException as error:
            self.problem = error

    def _handle(self, worker: Worker) -> None:
        message, descriptors = receive_message(worker.control)
        kind = message["kind"] if message is not None else "killed"
        if kind == "connection":
            self._sequence += 1
            self.unacknowledged[self._sequence] = descriptors[0]
            heir = self.workers[-1]
            assert heir is not worker
            forwarded = {"kind": "connection", "sequence": self._sequence}
            send_message(heir.control, forwarded, descriptors)
        elif kind == "adopted":
            os.close(self.unacknowledged.pop(message["sequence"]))
        elif kind == "ready":
            worker.ready.set()
        else:
            worker.stats = message or {"kind": "killed"}
            worker.ended.set()


class Client:
    """One connection, byte by byte."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, body: bytes = b"", path: str = "/") -> Answer:
        self.send(request(body, path))
        return self.answer()

    def answer(self) -> Answer:
        head = self.read_until(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        code = int(status.split()[1])
        return Answer(code, headers, self.read(int(headers.get("content-length", 0))))

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        data, _, self._rest = self._rest.partition(mark)
        return data

    def is_closed(self) -> bool:
        """Wait for the server to close; what it still sent is read away."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return False
        return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the server closed the connection after {self._rest!r}"
        self._rest += data


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.pid = int(headers.get("pid", 0))


def request(body: bytes = b"", path: str = "/", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
