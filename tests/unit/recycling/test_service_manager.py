"""What systemd is told, at the other end of a real socket."""

from __future__ import annotations

import os
import socket

import pytest

from memguard_native.recycling.service_manager import ServiceManager


@pytest.fixture
def systemd(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def manager(systemd, **variables):
    return ServiceManager(
        {"NOTIFY_SOCKET": systemd.getsockname(), **variables}, monotonic_ns=lambda: 5_000_000
    )


def told(systemd):
    messages = []
    while True:
        try:
            messages.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return messages


@pytest.mark.parametrize(
    ("tell", "message"),
    [
        (lambda one: one.ready(), "READY=1"),
        (lambda one: one.stopping(), "STOPPING=1"),
        (lambda one: one.reloading(), "RELOADING=1\nMONOTONIC_USEC=5000"),
        (lambda one: one.extend_timeout(30.0), "EXTEND_TIMEOUT_USEC=30000000"),
        (lambda one: one.status("2 of 2\nworkers"), "STATUS=2 of 2 workers"),
    ],
)
def test_each_message_is_one_datagram(systemd, tell, message):
    tell(manager(systemd))
    assert told(systemd) == [message]


def test_a_status_is_told_when_it_changes(systemd):
    one = manager(systemd)
    for text in ("1 ready", "1 ready", "2 ready"):
        one.status(text)
    assert told(systemd) == ["STATUS=1 ready", "STATUS=2 ready"]


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "2000000"}, True),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_PID": str(os.getpid())}, False),
    ],
)
def test_the_watchdog_is_told_where_it_watches_this_process(systemd, variables, is_told):
    manager(systemd, **variables).watchdog()
    assert told(systemd) == ["WATCHDOG=1"] * is_told


def test_the_listener_that_is_kept_is_the_very_same(systemd):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        manager(systemd).keep_listener(listener.fileno())
        assert systemd.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=memguard-listener"
        message, descriptors, _, _ = socket.recv_fds(systemd, 4096, 1)
        with socket.socket(fileno=descriptors[0]) as kept:
            assert message == b"FDSTORE=1\nFDNAME=memguard-listener"
            assert kept.getsockname() == listener.getsockname()


def test_an_abstract_name_is_understood():
    name = f"memguard-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(10)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).ready()
        assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "/no/such/socket"])
def test_where_nobody_listens_nothing_happens(name):
    one = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
    one.ready()
    one.watchdog()
    one.keep_listener(0)


def test_a_full_queue_does_not_hold_up_the_service(systemd):
    one = manager(systemd)
    for _ in range(5000):
        one.ready()
    assert 0 < len(told(systemd)) < 5000


def test_the_environment_is_that_of_the_process(systemd, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    ServiceManager().ready()
    assert told(systemd) == ["READY=1"]
