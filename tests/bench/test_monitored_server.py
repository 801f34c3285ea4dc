"""The suite of a monitored server beside an unmonitored one: real servers, a few requests."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from bench.harness import Bench, Effort
from bench.suites import monitored_server

from bench import servers

METRICS = {
    monitored_server.THROUGHPUT,
    monitored_server.COST,
    monitored_server.THROUGHPUT_RATIO,
    monitored_server.COST_RATIO,
}


@pytest.mark.parametrize("framework", ["none", "fastapi"])
def test_both_servers_answer_and_have_every_figure(framework: str) -> None:
    b = Bench(Effort(rounds=1, seconds=1.0, quick=True))
    with contextlib.ExitStack() as stack:
        running = {
            "alone": stack.enter_context(monitored_server._server(framework)),
            "alone, monitored": stack.enter_context(monitored_server._server(framework, "bytes")),
        }
        monitored_server._measure(b, "alone", running, rounds=2, seconds=0.1)
    assert set(b.samples) == METRICS
    for metric in METRICS:
        assert set(b.samples[metric]) == {"alone", "alone, monitored"}
    assert b.samples[monitored_server.THROUGHPUT_RATIO]["alone"] == [1.0]
    assert b.cases["alone, monitored"].package == "memguard-native"
    assert not b.budgets, "two equal servers differ by more than the goal allows"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\n{}", "answered HTTP/1.1 500"),
    ],
)
def test_an_answer_that_is_none_is_not_counted_as_speed(answer: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=lambda: (theirs.sendall(answer), theirs.close()))
        sending.start()
        with pytest.raises(servers.ServerError, match=words):
            monitored_server._read_answer(ours)
        sending.join()
