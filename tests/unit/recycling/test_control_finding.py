"""Supervisors that are found by their control sockets, and asked."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from memguard_native import segment
from memguard_native.errors import SegmentError, SupervisorError
from memguard_native.recycling.control import (
    LONGEST_BYTES,
    ask,
    find_supervisors,
    namespace_of,
    pid_of,
)

from .control_loop import Loop, asked

SUPERVISOR = """
import selectors, sys
from memguard_native import segment
from memguard_native.recycling.control import ControlServer
server = ControlServer(segment.directory(), sys.argv[1], lambda request: {"request": request})
selector = selectors.DefaultSelector()
server.register(selector)
print("ready", flush=True)
while True:
    for key, mask in selector.select():
        key.data(mask)
"""


@pytest.fixture
def start():
    """Starts a process with a control socket in a namespace."""
    processes = []

    def start(namespace):
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, namespace], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_where_nothing_was_shared_yet_there_is_none():
    assert find_supervisors(None) == []


def test_two_supervisors_are_told_apart(start):
    one, other = start("shop"), start("shop")
    found = find_supervisors("shop")
    assert {pid_of(path) for path in found} == {one.pid, other.pid}
    assert [ask(path, {"to": pid_of(path)})["request"] for path in found] == [
        {"to": pid_of(path)} for path in found
    ]


def test_those_of_other_namespaces_are_left_out(start):
    shop, other = start("shop"), start("shop.2")
    assert [pid_of(path) for path in find_supervisors("shop")] == [shop.pid]
    assert {namespace_of(path) for path in find_supervisors(None)} == {"shop", "shop.2"}
    assert [pid_of(path) for path in find_supervisors("shop.2")] == [other.pid]


def test_a_dead_ones_socket_is_removed_and_a_living_ones_is_kept(start):
    dead, living = start("shop"), start("shop")
    dead.kill()
    dead.wait(10)
    path = segment.directory() / f"shop.{dead.pid}.control"
    assert path.exists()
    assert [pid_of(path) for path in find_supervisors("shop")] == [living.pid]
    assert not path.exists()


def test_one_that_does_not_listen_yet_is_not_removed(segment_directory):
    segment_directory.mkdir(0o700)
    path = segment_directory / f"shop.{os.getpid()}.control"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert find_supervisors("shop") == []
        assert path.exists()


def test_a_stopped_one_is_found_and_named_as_such(start):
    stopped = start("shop")
    stopped.send_signal(signal.SIGSTOP)
    (path,) = find_supervisors("shop")
    with pytest.raises(SupervisorError, match=rf"no answer within 0\.2 s; .*{stopped.pid}"):
        ask(path, {}, timeout=0.2)


def test_a_stopped_one_that_many_wait_for_is_found_and_named_as_such(start):
    stopped = start("shop")
    stopped.send_signal(signal.SIGSTOP)
    (path,) = find_supervisors("shop")
    with ExitStack() as waiting:
        for _ in range(100):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        else:
            raise AssertionError("the queue has no end")
        assert find_supervisors("shop") == [path]
        with pytest.raises(SupervisorError, match=rf"no answer .*{stopped.pid}"):
            ask(path, {}, timeout=0.2)


def test_other_files_are_no_supervisors(segment_directory):
    segment_directory.mkdir(0o700)
    for name in ("shop-v1.seg", "shop.control", "shop.x.control", "a b.1.control"):
        (segment_directory / name).touch()
    assert find_supervisors(None) == []
    assert len(list(segment_directory.iterdir())) == 4


def test_a_directory_of_somebody_else_is_not_searched(segment_directory):
    segment_directory.mkdir()
    segment_directory.chmod(0o777)
    with pytest.raises(SegmentError):
        find_supervisors(None)


# --- asking ---------------------------------------------------------------------------------------


def test_one_that_has_gone_is_told_with_what_to_do(segment_directory):
    segment_directory.mkdir(0o700)
    with pytest.raises(SupervisorError, match="No such file or directory; memguard workers shows"):
        ask(segment_directory / "shop.77.control", {})


def test_an_error_that_is_answered_is_raised():
    loop = Loop(lambda _: {"schema": 1, "error": "no worker 7 is ready"})
    try:
        error = asked(loop, {})
        assert isinstance(error, SupervisorError)
        assert error.problem == "no worker 7 is ready"
    finally:
        loop.close()


@pytest.mark.parametrize("text", [b"", b"nonsense\n", b"[1]\n", b"x" * 2 * LONGEST_BYTES])
def test_what_is_no_answer_is_told(segment_directory, text):
    segment_directory.mkdir(0o700)
    path = segment_directory / "shop.77.control"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SupervisorError, match="closed without an answer"):
            ask(path, {})
        thread.join(10)
