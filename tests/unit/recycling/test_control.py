"""The control socket: who is answered, who is not, and that nobody holds the supervisor up.

The server runs on a loop that the test itself turns: what a turn does not do, nobody does.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import stat
import subprocess
import sys

import pytest

from memguard_native import segment
from memguard_native.errors import SegmentError, SupervisorError
from memguard_native.recycling import control
from memguard_native.recycling.control import (
    LONGEST_BYTES,
    MOST_CLIENTS,
    TIMEOUT,
    ControlServer,
    find_supervisors,
)

from .control_loop import Loop, asked, echo


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def connect(loop):
    opened = []

    def connect(send=b""):
        client = socket.socket(socket.AF_UNIX)
        opened.append(client)
        client.settimeout(10)
        client.connect(str(loop.server.path))
        client.sendall(send)
        return client

    yield connect
    for client in opened:
        client.close()


def answer_of(client):
    """The whole of what the server has sent until it closed."""
    received = b""
    while more := client.recv(2**16):
        received += more
    return json.loads(received) if received else None


# --- answering ------------------------------------------------------------------------------------


def test_a_line_of_json_is_answered_by_one(loop, connect):
    client = connect(b'{"command": "workers"}\n')
    loop.settle()
    assert answer_of(client) == {"schema": 1, "request": {"command": "workers"}}
    assert loop.clients() == 0


def test_a_request_that_comes_in_pieces_is_answered(loop, connect):
    client = connect(b'{"comm')
    loop.settle()
    client.sendall(b'and": 1}\n')
    loop.settle()
    assert answer_of(client)["request"] == {"command": 1}


def test_an_answer_that_nobody_reads_yet_is_sent_when_there_is_room():
    loop = Loop(lambda _: {"text": "x" * (LONGEST_BYTES - 100)})
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(loop.server.path))
            client.sendall(b"{}\n")
            narrow(loop)
            loop.settle()
            assert loop.clients() == 1, "all was sent at once"
            received = b""
            while loop.clients():
                received += client.recv(4096)
                loop.settle()
            while more := client.recv(4096):
                received += more
            assert len(json.loads(received)["text"]) == LONGEST_BYTES - 100
    finally:
        loop.close()


def narrow(loop):
    """Accept the only client, and leave room for little at a time."""
    loop.turn()
    files = [key.fileobj for key in loop.selector.get_map().values()]
    (connection,) = [one for one in files if one is not loop.server._listener]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nonsense\n", "the request is no line of JSON"),
        (b"\xff\xfe\xfa\n", "the request is no line of JSON"),
        (b"[" * 60_000 + b"\n", "the request is no line of JSON"),
        (b"\n", "the request is no line of JSON"),
        (b"[1]\n", "the request is no object"),
        (b"{" * LONGEST_BYTES, f"the request has more than {LONGEST_BYTES} bytes"),
    ],
)
def test_what_is_no_request_is_told(loop, connect, line, error):
    client = connect(line)
    loop.settle()
    assert answer_of(client) == {"schema": 1, "error": error}
    assert loop.clients() == 0


def test_the_longest_request_is_answered():
    loop = Loop(lambda request: {"length": len(json.dumps(request)) + 1})
    try:
        assert asked(loop, {"a": "x" * (LONGEST_BYTES - 10)}) == {"length": LONGEST_BYTES}
    finally:
        loop.close()


def test_an_answer_that_is_too_long_is_told():
    loop = Loop(lambda _: {"text": "x" * LONGEST_BYTES})
    try:
        assert "at most 65536 are sent" in str(asked(loop, {}))
    finally:
        loop.close()


@pytest.mark.parametrize("answer", [lambda _: 1 / 0, lambda _: {"set": set()}])
def test_a_failure_to_answer_ends_a_request_and_not_the_service(caplog, answer):
    loop = Loop(answer)
    try:
        with caplog.at_level(logging.ERROR):
            assert "the supervisor failed to answer" in str(asked(loop, {"command": "x"}))
        assert "a request to the control socket failed: {'command': 'x'}" in caplog.text
        assert "the supervisor failed" in str(asked(loop, {}))
    finally:
        loop.close()


# --- who is not answered --------------------------------------------------------------------------


def test_other_users_are_not_answered():
    asked_of = []
    loop = Loop(asked_of.append, is_allowed=lambda _: False)
    try:
        assert "closed without an answer" in str(asked(loop, {}))
        assert asked_of == []
    finally:
        loop.close()


def test_the_peer_is_known_by_the_kernels_word(monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control._is_same_user(ours)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not control._is_same_user(ours)


def test_half_a_request_costs_nobody_anything_and_is_over_after_five_seconds(loop, connect):
    slow = connect(b'{"command": ')
    loop.settle()
    loop.server.expire(100.0)
    quick = connect(b"{}\n")
    loop.settle()
    assert answer_of(quick)["request"] == {}
    loop.server.expire(100.0 + TIMEOUT - 0.1)
    assert loop.clients() == 1
    loop.server.expire(100.0 + TIMEOUT)
    assert loop.clients() == 0
    assert answer_of(slow) is None


def test_who_sends_a_byte_now_and_then_gets_no_more_time(loop, connect):
    slow = connect()
    for second in range(6):
        slow.sendall(b" ")
        loop.settle()
        loop.server.expire(100.0 + second)
    assert loop.clients() == 0


def test_who_leaves_in_the_middle_is_forgotten(loop, connect):
    connect(b'{"comm').close()
    loop.settle()
    assert loop.clients() == 0


def test_who_leaves_before_the_answer_is_forgotten(loop, connect):
    connect(b"{}\n").close()
    loop.settle()
    assert loop.clients() == 0


def test_the_ninth_client_is_told_to_come_again(loop, connect):
    waiting = [connect() for _ in range(MOST_CLIENTS)]
    loop.settle()
    ninth = connect()
    loop.settle()
    assert answer_of(ninth)["error"] == "8 clients are served already; try again"
    assert loop.clients() == MOST_CLIENTS
    waiting[3].sendall(b"{}\n")
    loop.settle()
    assert answer_of(waiting[3])["request"] == {}
    tenth = connect(b"{}\n")
    loop.settle()
    assert answer_of(tenth)["request"] == {}


class Refusing:
    """A listener whose first clients find no descriptor left."""

    def __init__(self, listener, times):
        self._listener = listener
        self.times = times

    def accept(self):
        if self.times > 0:
            self.times -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self._listener.accept()

    def __getattr__(self, name):
        return getattr(self._listener, name)


def test_without_a_descriptor_left_clients_wait_and_the_loop_does_not_spin(loop, connect, caplog):
    loop.selector.unregister(loop.server._listener)
    loop.server._listener = Refusing(loop.server._listener, times=1)
    loop.server.register(loop.selector)
    client = connect(b"{}\n")
    with caplog.at_level(logging.WARNING):
        assert [loop.turn(), loop.turn()] == [True, False]
    assert "has to wait: " in caplog.text
    loop.server.expire(100.0)
    loop.settle()
    assert answer_of(client)["request"] == {}


def test_it_can_be_closed_while_clients_wait_for_a_descriptor(loop, connect):
    loop.selector.unregister(loop.server._listener)
    loop.server._listener = Refusing(loop.server._listener, times=1)
    loop.server.register(loop.selector)
    connect()
    loop.turn()
    loop.server.close()
    assert not loop.server.path.exists()


# --- its file -------------------------------------------------------------------------------------


def test_it_lies_beside_the_segment_for_this_user_alone():
    before = os.umask(0)
    try:
        loop = Loop()
    finally:
        os.umask(before)
    try:
        path = segment.directory() / f"shop.{os.getpid()}.control"
        assert loop.server.path == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        loop.close()


def test_a_directory_that_others_may_write_to_is_refused():
    segment.directory().mkdir()
    segment.directory().chmod(0o777)
    with pytest.raises(SegmentError, match="others may write to the directory"):
        ControlServer(segment.directory(), "shop", echo)


def test_closing_removes_it_and_ends_its_clients(loop, connect):
    client = connect()
    loop.settle()
    loop.server.close()
    loop.server.close()
    assert answer_of(client) is None
    assert not loop.server.path.exists()
    assert len(loop.selector.get_map()) == 0


def test_what_an_earlier_process_of_this_number_has_left_is_replaced():
    first = Loop()
    path = first.server.path
    first.server._listener.close()  # as by kill -9: nothing is removed
    second = Loop()
    try:
        assert asked(second, {})["request"] == {}
        assert second.server.path == path
    finally:
        second.close()
        first.selector.close()


def test_one_that_answers_already_is_not_taken_away(loop):
    with pytest.raises(SupervisorError, match="a namespace of its own"):
        Loop()
    assert asked(loop, {})["request"] == {}


def test_a_directory_with_a_long_name_is_no_hindrance(monkeypatch, segment_directory):
    directory = segment_directory / ("d" * 200)
    directory.parent.mkdir(mode=0o700)
    monkeypatch.setenv("MEMGUARD_DIR", str(directory))
    loop = Loop(namespace="n" * 64)
    try:
        assert asked(loop, {})["request"] == {}
        assert find_supervisors("n" * 64) == [loop.server.path]
    finally:
        loop.close()


def test_it_is_light():
    program = (
        "import sys; before = set(sys.modules); import memguard_native.segment; "
        "known = set(sys.modules); "
        "from memguard_native.recycling import control, listener, service_manager; "
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - known}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "http", "ssl", "numpy", "uvicorn"} & set(
        json.loads(done.stdout.replace("'", '"'))
    )
