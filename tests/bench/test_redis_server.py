"""The redis-server of benchmarks: started, awaited, stopped, and nothing is left of it."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from bench import redis_server, servers


def test_server_keeps_nothing_listens_on_loopback_and_is_gone_afterwards() -> None:
    with redis_server.running() as server:
        process = psutil.Process(server.process.pid)
        folder = Path(process.cwd())
        with socket.create_connection((servers.HOST, server.port), 5.0) as connection:
            connection.sendall(b"CONFIG GET save\r\n")
            assert connection.recv(64) == b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
        assert {one.laddr.ip for one in process.net_connections()} == {servers.HOST}
    assert not psutil.pid_exists(process.pid)
    assert not folder.exists()


def test_server_is_stopped_if_what_uses_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), redis_server.running() as server:
        raise ZeroDivisionError
    assert not psutil.pid_exists(server.process.pid)


def test_missing_server_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.shutil, "which", lambda _: None)
    assert not redis_server.is_installed()
    with (
        pytest.raises(servers.ServerError, match="apt-get install redis-server"),
        redis_server.running(),
    ):
        pass
