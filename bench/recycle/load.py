"""Requests to a server that replaces its workers; none is lost sight of.

`asyncio.run(send(Load(port=...)))` sends POSTs over kept connections, checks each answer, and tells
what every request came to. Nothing is ever sent again, as no client may repeat a POST by itself. A
failure is what happens after the request was begun. That a server has closed an idle connection is
seen before, as any client looks before it sends: such a request goes over a new connection, and
that is counted apart. All is one thread with sockets of its own, some 25 us a request.

The server answers as `answers.answer_to` does. Latencies count from the beginning of a request,
making its connection included. Times are those of `time.monotonic`; units are seconds.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass

from bench.recycle.answers import pid_in
from bench.recycle.results import Answer, Cause, Failed, Failure, Result

# Between two looks for requests that take too long.
_SWEEP_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send; it ends after `requests`, or after `seconds`, whichever is first.

    `new_connections` is the share of requests that go over a new connection; `think` passes between
    an answer and the next request, `pause` after a failure.

    Raises ValueError: no end, no client, or a share outside of 0 to 1.
    """

    port: int
    host: str = "127.0.0.1"
    path: str = "/"
    clients: int = 8
    requests: int | None = None
    seconds: float | None = None
    new_connections: float = 0.0
    think: float = 0.0
    body_bytes: int = 200
    timeout: float = 15.0
    pause: float = 0.05

    def __post_init__(self) -> None:
        if self.requests is None and self.seconds is None:
            raise ValueError("a load needs an end: requests or seconds")
        if self.clients < 1:
            raise ValueError(f"clients={self.clients}: a load has at least one")
        if not 0.0 <= self.new_connections <= 1.0:
            raise ValueError(f"new_connections={self.new_connections}: a share is from 0 to 1")


async def send(load: Load) -> Result:
    """Send it all, and wait for what is under way at the end; it fails by `timeout` at the latest.

    Raises OSError: a connection cannot be made for another reason than the server.
    """
    run = _Run(load)
    return await run.result()


class _Run:
    """What the clients of one load share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.loop = asyncio.get_running_loop()
        self.answers: list[Answer] = []
        self.failures: list[Failed] = []
        self.connections: Counter[Cause] = Counter()
        self.started_at = time.monotonic()
        self._begun = 0
        self._draw = random.Random(load.clients)
        self._clients = [_Client(self, number) for number in range(load.clients)]
        self._running = len(self._clients)
        self._ended: asyncio.Future[None] = self.loop.create_future()

    async def result(self) -> Result:
        try:
            for client in self._clients:
                client.begin()
            while not self._ended.done():
                await asyncio.wait([self._ended], timeout=_SWEEP_S)
                overdue = time.monotonic() - self.load.timeout
                for client in self._clients:
                    client.expire(overdue)
            self._ended.result()
        finally:
            self._ended.cancel()
            for client in self._clients:
                client.close()
        return Result(
            started_at=self.started_at,
            ended_at=time.monotonic(),
            answers=tuple(self.answers),
            failures=tuple(self.failures),
            connections=self.connections,
        )

    def next_request(self) -> int | None:
        """Its number; None: no more are sent."""
        load = self.load
        if self._ended.done():
            return None
        if load.requests is not None and self._begun >= load.requests:
            return None
        if load.seconds is not None and time.monotonic() >= self.started_at + load.seconds:
            return None
        self._begun += 1
        return self._begun

    def chooses_new_connection(self) -> bool:
        share = self.load.new_connections
        return share > 0.0 and self._draw.random() < share

    def client_ended(self) -> None:
        self._running -= 1
        if not self._running and not self._ended.done():
            self._ended.set_result(None)

    def broken(self, error: OSError) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


class _Client:
    """One connection at a time, and at most one request on it."""

    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._number = number
        self._socket: socket.socket | None = None
        self._why = Cause.first
        self._is_waiting = False
        self._begun_at = 0.0
        head = f"POST {run.load.path} HTTP/1.1\r\nhost: bench\r\ncontent-length: "
        self._head = head.encode()
        self._body = b""
        self._unsent = memoryview(b"")
        self._received = bytearray()

    def begin(self) -> None:
        """Send the next request, or end."""
        request = self._run.next_request()
        if request is None:
            self._run.client_ended()
            return
        body = b"%d of client %d." % (request, self._number)
        self._body = body.ljust(self._run.load.body_bytes, b".")
        self._unsent = memoryview(b"%b%d\r\n\r\n%b" % (self._head, len(self._body), self._body))
        self._received.clear()
        self._is_waiting = True
        self._begun_at = time.monotonic()
        if self._socket is not None and self._run.chooses_new_connection():
            self._leave(Cause.chosen)
        if self._socket is not None and _was_closed(self._socket):
            self._leave(Cause.silent)
        if self._socket is None:
            self._connect()
        else:
            self._send()

    def expire(self, overdue: float) -> None:
        if self._is_waiting and self._begun_at < overdue:
            self._fail(Failure.timeout)

    def close(self) -> None:
        if self._socket is not None:
            self._run.loop.remove_reader(self._socket)
            self._run.loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _leave(self, why: Cause) -> None:
        self._why = why
        self.close()

    def _connect(self) -> None:
        self._run.connections[self._why] += 1
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.connect((self._run.load.host, self._run.load.port))
        except (BlockingIOError, ConnectionError):
            pass  # told as soon as it is writable
        except OSError as error:
            self._run.broken(error)
            return
        self._run.loop.add_writer(self._socket, self._connected)

    def _connected(self) -> None:
        assert self._socket is not None
        self._run.loop.remove_writer(self._socket)
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            self._socket.getpeername()
        except OSError:
            self._fail(Failure.reset if error == errno.ECONNRESET else Failure.refused)
            return
        self._run.loop.add_reader(self._socket, self._readable)
        self._send()

    def _send(self) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._fail(Failure.reset)
            return
        if self._unsent:
            self._run.loop.add_writer(self._socket, self._send_rest)

    def _send_rest(self) -> None:
        assert self._socket is not None
        self._run.loop.remove_writer(self._socket)
        self._send()

    def _readable(self) -> None:
        assert self._socket is not None
        if not self._is_waiting:
            # An end, or words that nobody asked for: both are seen before the next request.
            self._leave(Cause.silent)
            return
        try:
            part = self._socket.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            self._fail(Failure.reset)
            return
        if not part:
            self._fail(Failure.cut if self._received else Failure.empty)
            return
        self._received += part
        self._read_answer()

    def _read_answer(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        if head.split(b" ", 2)[1] != b"200":
            self._fail(Failure.status)
            return
        length = _header(head, b"content-length")
        if length is None or not length.isdigit():
            self._fail(Failure.wrong)
            return
        answer = bytes(self._received[end + 4 :])
        if len(answer) < int(length):
            return
        pid = pid_in(answer, self._body)
        if pid is None:
            self._fail(Failure.wrong)
            return
        self._succeed(pid, is_last=_header(head, b"connection") == b"close")

    def _succeed(self, pid: int, *, is_last: bool) -> None:
        now = time.monotonic()
        self._run.answers.append(Answer(now, now - self._begun_at, pid))
        self._is_waiting = False
        if is_last:
            self._leave(Cause.told)
        if self._run.load.think:
            self._run.loop.call_later(self._run.load.think, self.begin)
        else:
            self.begin()

    def _fail(self, kind: Failure) -> None:
        assert self._socket is not None
        port = self._socket.getsockname()[1]
        self._run.failures.append(Failed(time.monotonic(), kind, port))
        self._is_waiting = False
        self._leave(Cause.failed)
        self._run.loop.call_later(self._run.load.pause, self.begin)


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a field in a head of small letters."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else None


def _was_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended an idle connection, as far as it is known here."""
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True
