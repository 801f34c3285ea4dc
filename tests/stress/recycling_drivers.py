"""What the tests of recycling under load have in common: who holds which connection, and kills.

A connection is known by the port of its client. Which of them a process holds is read from the
kernel: the sockets among its descriptors, and the table of connections that names their ends.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.recycle.answers import pid_in

from ..integration.recycling.supervised import children_of

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


class Kill(NamedTuple):
    """A process that was killed; `ports` are of the clients whose connections nobody else had."""

    at: float
    pid: int
    ports: set[int]


def kill_exactly(running, pid):
    """Kill it; None: it has ended by itself before.

    It is stopped first, so that what it holds at its end can be told: it does nothing between.
    """
    if not stop(pid):
        return None
    for _ in range(2):  # the supervisor has heard by then all that it has ever said
        running.workers()
    ports = ports_held_by(pid, running.port)
    # The supervisor first: what it does not hold any more lies with a worker already.
    others = [running.process.pid, *(one["pid"] for one in running.workers() if one["pid"] != pid)]
    for other in others:
        ports -= ports_held_by(other, running.port)
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return Kill(at, pid, ports)


def stop(pid):
    """Stop it; whether it was there, and stands still now."""
    try:
        os.kill(pid, signal.SIGSTOP)
        while (state := _state_of(pid)) != "T":
            if state in "ZX":
                return False
            time.sleep(0.0005)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def ports_held_by(pid, server_port):
    """The ports of the clients whose connections with the server this process has open."""
    held = set()
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):  # it has ended
        for name in os.listdir(folder):
            with suppress(OSError):
                held.add(os.readlink(f"{folder}/{name}"))
    return {
        port
        for port, inode in _connections(server_port)
        if inode != "0" and f"socket:[{inode}]" in held
    }


def _connections(server_port):
    """(port of the client, inode of the server's socket) of each."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ours, theirs = (int(fields[n].rpartition(":")[2], 16) for n in (1, 2))
        if ours == server_port and theirs:
            yield theirs, fields[9]


def accept_queue(server_port):
    """How many connections wait to be accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == server_port and fields[3] == "0A":
            return int(fields[4].partition(":")[2], 16)
    raise AssertionError(f"nobody listens at {server_port}")


def _state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def descriptors_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def zygote_of(running):
    """None: there is none now."""
    workers = {one["pid"] for one in running.workers()}
    found = [pid for pid in children_of(running.process.pid) if pid not in workers]
    return found[0] if len(found) == 1 else None


def processes_of(directory):
    """All that live with this directory of shared memory, whoever has started them."""
    mark = f"MEMGUARD_DIR={directory}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.add(int(name))
    return found


def is_settled(running, workers):
    """Whether there are exactly a supervisor, a zygote and so many workers, all ready."""
    ready = {one["pid"] for one in running.workers("ready")}
    if len(ready) != workers or len(running.workers()) != workers:
        return False
    zygote = zygote_of(running)
    if zygote is None:
        return False
    expected = {running.process.pid, zygote, *ready}
    family = {running.process.pid, *children_of(running.process.pid), *children_of(zygote)}
    return processes_of(running.directory) == expected == family  # a zombie has a parent only


class Client:
    """A kept connection that never connects again; each answer is checked."""

    def __init__(self, port, connection=None):
        """`connection`: there is one, or will be."""
        self.socket = connection or socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.port = self.socket.getsockname()[1]
        self._body = b""
        self._asked = 0

    def ask(self, path="/"):
        """The process that answers."""
        self.send(path)
        return self.answer()

    def send(self, path="/"):
        self._asked += 1
        self._body = b"%d of %d" % (self._asked, self.port)
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(self._body)}\r\n\r\n"
        self.socket.sendall(head.encode() + self._body)

    def answer(self):
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more(received)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), received
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < length:
            body += self._more(body)
        pid = pid_in(body, self._body)
        assert pid is not None, received
        return pid

    def _more(self, received):
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionResetError(f"closed after {received!r}")
        return part

    def close(self):
        self.socket.close()
