"""The control socket of a supervisor: a line of JSON asks, a line of JSON answers.

A unix socket `<namespace>.<pid>.control` beside the segment, of mode 0600, for processes of this
user alone (SO_PEERCRED). One request for each connection, request and answer at most 64 KiB, 5
seconds for both, 8 clients at a time. The server never blocks: it lives in the supervisor's loop,
and neither a slow client nor a broken one may cost that anything.

`ControlServer` is for the supervisor's thread; `find_supervisors()` and `ask()` are for others.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memguard_native import segment
from memguard_native.errors import SupervisorError

logger = logging.getLogger("memguard_native.recycling")

LONGEST_BYTES = 64 * 1024
MOST_CLIENTS = 8
TIMEOUT = 5.0

_SCHEMA = 1
_MODE = 0o600
_NAME = re.compile(r"([A-Za-z0-9._-]{1,64})\.(\d+)\.control")
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def _is_same_user(client: socket.socket) -> bool:
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(found)[1] == os.geteuid())


class ControlServer:
    """Answers at `<directory>/<namespace>.<pid>.control` from its construction until `close()`.

    `answer` is given a request and returns what is to be sent; what it raises is logged, and the
    client is told of a failure.

    Raises SegmentError: the directory is somebody else's, or open to others. SupervisorError:
    another process answers there already. OSError: there is no room, or no permission.
    """

    def __init__(
        self,
        directory: Path,
        namespace: str,
        answer: Answer,
        *,
        is_allowed: Callable[[socket.socket], bool] = _is_same_user,
    ) -> None:
        self.path = directory / f"{namespace}.{os.getpid()}.control"
        self._answer = answer
        self._is_allowed = is_allowed
        self._clients: set[_Client] = set()
        self._selector: selectors.BaseSelector | None = None
        self._is_paused = False
        with suppress(FileExistsError):
            directory.mkdir(0o700)
        segment.check_directory(directory)
        self._listener = _listen(self.path)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Be called by whoever selects: the keys' data are callables that take the event mask."""
        self._selector = selector
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def expire(self, now: float) -> None:
        """Close whoever is slower than 5 seconds; to be called about ten times a second."""
        for client in list(self._clients):
            if client.is_late(now):
                client.close()
        if self._is_paused and self._selector is not None:
            self._is_paused = False
            self.register(self._selector)

    def close(self) -> None:
        """Answer no more, and remove the socket. Further calls do nothing."""
        for client in list(self._clients):
            client.close()
        if self._listener.fileno() >= 0:
            if self._selector is not None and not self._is_paused:
                self._selector.unregister(self._listener)
            self._listener.close()
            self.path.unlink(missing_ok=True)

    def _accept(self, _mask: int) -> None:
        assert self._selector is not None
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        except OSError as error:
            # No descriptor left, for example. It would be called again at once, and for ever.
            logger.warning("a client of the control socket has to wait: %s", error)
            self._selector.unregister(self._listener)
            self._is_paused = True
            return
        connection.setblocking(False)
        if not self._is_allowed(connection):
            connection.close()
            return
        client = _Client(connection, self._selector, self._clients, self._reply)
        if len(self._clients) > MOST_CLIENTS:
            client.send(_failure(f"{MOST_CLIENTS} clients are served already; try again"))

    def _reply(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _failure("the request is no line of JSON")
        if not isinstance(request, dict):
            return _failure("the request is no object")
        try:
            text = json.dumps(self._answer(request)).encode() + b"\n"
        except Exception:  # a service does not end because somebody looked at it
            logger.exception("a request to the control socket failed: %r", request)
            return _failure("the supervisor failed to answer; its log says why")
        if len(text) > LONGEST_BYTES:
            return _failure(f"the answer has {len(text)} bytes; at most {LONGEST_BYTES} are sent")
        return text


class _Client:
    """One connection: reads a line, sends one, and closes."""

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        clients: set[_Client],
        reply: Callable[[bytes], bytes],
    ) -> None:
        self._connection = connection
        self._selector = selector
        self._clients = clients
        self._reply = reply
        self._received = b""
        self._unsent = b""
        self._deadline: float | None = None
        clients.add(self)
        selector.register(connection, selectors.EVENT_READ, self._on_event)

    def is_late(self, now: float) -> bool:
        """Whether its time is over; it begins at the first call."""
        if self._deadline is None:
            self._deadline = now + TIMEOUT
        return now >= self._deadline

    def close(self) -> None:
        self._clients.discard(self)
        self._selector.unregister(self._connection)
        self._connection.close()

    def send(self, answer: bytes) -> None:
        """Send it, now or when there is room, and close."""
        self._unsent = answer
        self._selector.modify(self._connection, selectors.EVENT_WRITE, self._on_event)
        self._on_event(selectors.EVENT_WRITE)

    def _on_event(self, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                self._read()
            else:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
                if not self._unsent:
                    self.close()
        except BlockingIOError:
            return
        except OSError:  # it has gone
            self.close()

    def _read(self) -> None:
        received = self._connection.recv(LONGEST_BYTES)
        self._received += received
        line, end, _ = self._received.partition(b"\n")
        if len(line) >= LONGEST_BYTES:
            self.send(_failure(f"the request has more than {LONGEST_BYTES} bytes"))
        elif end:
            self.send(self._reply(line))
        elif not received:
            self.close()


def _failure(text: str) -> bytes:
    return json.dumps({"schema": _SCHEMA, "error": text}).encode() + b"\n"


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), _MODE)  # before bind: it never has another mode
        with _address(path) as address:
            if os.path.lexists(path):
                _remove_own(path, address)
            listener.bind(address)
        listener.listen(MOST_CLIENTS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_own(path: Path, address: str) -> None:
    """What an earlier process of this number has left. Raises SupervisorError: somebody answers."""
    if _is_answered(address):
        problem = "a process of this number answers here already, in another container"
        cure = "give each container a directory (MEMGUARD_DIR) or a namespace of its own"
        raise SupervisorError(str(path), problem, cure)
    path.unlink()


# --- asking ---------------------------------------------------------------------------------------


def find_supervisors(namespace: str | None) -> list[Path]:
    """The sockets of supervisors that live, of one namespace or of all (None), sorted by name.

    Those that processes have left behind that are gone are removed.

    Raises SegmentError: the directory is somebody else's, or open to others.
    """
    directory = segment.directory()
    if not os.path.lexists(directory):
        return []
    segment.check_directory(directory)
    return sorted(
        path
        for path in directory.iterdir()
        if (found := _NAME.fullmatch(path.name)) is not None
        and namespace in (None, found[1])
        and _lives(path, int(found[2]))
    )


def namespace_of(path: Path) -> str:
    """Of a socket that `find_supervisors()` has found."""
    return _parts(path)[0]


def pid_of(path: Path) -> int:
    """Of the supervisor, in the container that it runs in."""
    return int(_parts(path)[1])


def _parts(path: Path) -> tuple[str, str]:
    namespace, pid, _ = path.name.rsplit(".", 2)
    return namespace, pid


def _lives(path: Path, pid: int) -> bool:
    with _address(path) as address:
        if _is_answered(address):
            return True
    # It may be between bind() and listen(): only what no process can be is removed.
    if not os.path.exists(f"/proc/{pid}"):
        path.unlink(missing_ok=True)
    return False


def _is_answered(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)  # a full queue is somebody, too
        return visitor.connect_ex(address) in (0, errno.EAGAIN)


def ask(path: Path, request: dict[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
    """The answer of the supervisor at `path` to `request`, within `timeout` seconds.

    Raises SupervisorError: it has gone, does not answer in time, or answers that it cannot do it.
    """
    try:
        line = _exchange(path, json.dumps(request).encode() + b"\n", time.monotonic() + timeout)
    except (TimeoutError, BlockingIOError):  # the latter: so many others wait already
        cure = f"look at process {pid_of(path)}: it may be stopped, or its host is overloaded"
        raise SupervisorError(str(path), f"no answer within {timeout:g} s", cure) from None
    except OSError as error:
        cure = "memguard workers shows which supervisors there are"
        raise SupervisorError(str(path), error.strerror or str(error), cure) from None
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        cure = f"look at the log of process {pid_of(path)}"
        raise SupervisorError(str(path), "the connection was closed without an answer", cure)
    if "error" in answer:
        raise SupervisorError(str(path), str(answer["error"]), "see memguard workers")
    return answer


def _exchange(path: Path, line: bytes, deadline: float) -> bytes:
    received = b""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        _address(path) as address,
    ):
        connection.settimeout(_left(deadline))
        connection.connect(address)
        # Who is refused is answered before all is sent; the answer is there all the same.
        with suppress(ConnectionError):
            connection.sendall(line)
        with suppress(ConnectionError):  # closed before it had read all: as if it had
            while b"\n" not in received and len(received) <= LONGEST_BYTES:
                connection.settimeout(_left(deadline))
                more = connection.recv(LONGEST_BYTES)
                if not more:
                    break
                received += more
    return received


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """How to name `path` to a socket, which takes 107 bytes: MEMGUARD_DIR may have more."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
