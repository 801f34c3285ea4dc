"""Connections over a recycle, in every state that a client can have brought them into.

Two real workers share a listener; what the old one hands out is relayed to the new one. Each test
runs on asyncio and uvloop, with httptools and h11.
"""

from __future__ import annotations

import pytest
from tests.integration.recycling.service import IDLE_DRAIN, request


def test_idle_connections_are_answered_by_the_new_worker(service, old):
    clients = [service.client() for _ in range(20)]
    assert {client.ask().pid for client in clients} == {old.pid}
    new = service.start()
    old.drain()
    stats = old.wait_for_end()
    assert [client.ask(b"again").pid for client in clients] == [new.pid] * 20
    assert (stats["handed_over"], stats["aborted"]) == (20, 0)


def test_a_silent_connection_is_handed_over(service, old):
    client = service.client()
    service.client().ask()  # accepted after the silent one
    new = service.start()
    old.drain()
    old.wait_for_end()
    assert client.ask().pid == new.pid


def test_half_sent_headers_are_finished_here_and_the_next_request_there(service, old):
    client = service.client()
    client.ask()
    whole = request(b"body")
    client.send(whole[:20])
    service.client().ask()  # then what was sent before has arrived
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    client.send(whole[20:])
    assert client.answer().pid == old.pid
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask().pid == new.pid


@pytest.mark.parametrize("is_reused", [False, True])
def test_a_half_sent_body_is_finished_here_and_the_next_request_there(service, old, is_reused):
    client = service.client()
    if is_reused:
        client.ask()
    whole = request(b"0123456789")
    client.send(whole[:-5])
    service.client().ask()  # then what was sent before has arrived
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    client.send(whole[-5:])
    answer = client.answer()
    assert (answer.pid, answer.body) == (old.pid, b"0123456789")
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask().pid == new.pid


def test_pipelined_requests_are_answered_here_and_the_next_one_there(service, old):
    client = service.client()
    client.send(request(path="/slow") + b"".join(request(b"%d" % i) for i in range(4)))
    service.client().ask()  # then what was sent before has arrived
    new = service.start()
    old.drain()
    answers = [client.answer() for _ in range(5)]
    assert [answer.body for answer in answers] == [b"slow", b"0", b"1", b"2", b"3"]
    assert {answer.pid for answer in answers} == {old.pid}
    assert old.wait_for_end()["requests"] == 6
    assert client.ask().pid == new.pid


def test_a_body_that_goes_on_after_its_answer_ends_here(service, old):
    client = service.client()
    whole = request(b"x" * 1000, "/early")
    client.send(whole[:-500])
    assert client.answer().status == 413
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    client.send(whole[-500:])
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask(b"next").pid == new.pid


def test_a_client_that_waits_for_100_continue_is_served_here(service, old):
    client = service.client()
    whole = request(b"body", "/", "Expect: 100-continue")
    client.send(whole[:-4])
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    client.send(whole[-4:])
    answer = client.answer()
    assert (answer.pid, answer.body) == (old.pid, b"body")
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask().pid == new.pid


def test_a_chunked_upload_is_finished_here(service, old):
    client = service.client()
    client.send(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    service.client().ask()  # then what was sent before has arrived
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    client.send(b"3\r\ndef\r\n0\r\n\r\n")
    answer = client.answer()
    assert (answer.pid, answer.body) == (old.pid, b"abcdef")
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask().pid == new.pid


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_asks_for_the_end_of_a_connection_gets_it(service, old, version):
    client = service.client()
    client.send(request(b"", "/slow", "Connection: close", version=version))
    service.client().ask()  # then what was sent before has arrived
    service.start()
    old.drain()
    assert client.answer().body == b"slow"
    assert client.is_closed()
    stats = old.wait_for_end()
    assert (stats["handed_over"], stats["aborted"]) == (1, 0)  # the other client's


def test_a_slow_reader_gets_its_answer_to_the_end(service, old):
    client = service.client()
    client.send(request(path="/big"))
    client.read_until(b"\r\n\r\n")
    new = service.start()
    old.drain()
    assert not old.ended.wait(IDLE_DRAIN)
    assert client.read(10_000_000) == b"x" * 10_000_000
    assert old.wait_for_end()["aborted"] == 0
    assert client.ask().pid == new.pid


def test_requests_sent_in_the_very_turn_of_the_drain_are_answered(service, old):
    clients = [service.client() for _ in range(20)]
    for client in clients:
        client.ask()
    new = service.start()
    old.stop()
    for client in clients[:10]:
        client.send(request(b"first"))
    old.drain()
    for client in clients[10:]:
        client.send(request(b"second"))
    old.proceed()
    assert [c.answer().body for c in clients] == [b"first"] * 10 + [b"second"] * 10
    assert old.wait_for_end()["aborted"] == 0
    assert {client.ask().pid for client in clients} == {new.pid}


@pytest.mark.parametrize("which_is_first", ["drain", "connections"])
def test_connections_that_arrive_in_the_very_turn_of_the_drain_are_answered(
    service, old, which_is_first
):
    service.client().ask()
    old.stop()
    if which_is_first == "drain":
        old.drain()
    clients = [service.client() for _ in range(10)]
    for client in clients[:5]:
        client.send(request(b"body"))
    if which_is_first == "connections":
        old.drain()
    service.fork_heir()
    old.proceed()
    for client in clients[5:]:
        client.send(request(b"body"))
    assert [client.answer().body for client in clients] == [b"body"] * 10
    assert old.wait_for_end()["aborted"] == 0


def test_a_worker_hands_on_what_it_was_handed(service, old):
    client = service.client()
    pids = [client.ask().pid]
    for _ in range(5):
        retiring = service.workers[-1]
        service.start()
        retiring.drain()
        assert retiring.wait_for_end()["handed_over"] == 1
        pids.append(client.ask().pid)
    assert pids == [worker.pid for worker in service.workers]


def test_a_full_queue_of_descriptors_only_delays(service, old):
    clients = [service.client() for _ in range(400)]
    for client in clients:
        client.ask()
    new = service.start()
    new.stop()
    old.drain()
    new.proceed()
    stats = old.wait_for_end()
    assert stats["handed_over"] == 400
    assert stats["refused"] > 0
    assert {client.ask().pid for client in clients} == {new.pid}


def test_an_event_stream_ends_at_the_deadline(service, old):
    client = service.client()
    client.send(request(path="/events"))
    client.read_until(b"data: 1")
    service.start()
    old.drain(seconds=0.1)
    assert client.is_closed()
    assert old.wait_for_end()["aborted"] == 1


def test_a_websocket_is_told_to_come_again_at_the_deadline(service, old):
    client = service.client()
    client.send(HANDSHAKE)
    assert b"101" in client.read_until(b"\r\n\r\n")
    service.start()
    old.drain(seconds=0.1)
    assert client.read(4) == b"\x88\x02" + (1012).to_bytes(2, "big")
    assert client.is_closed()
    assert old.wait_for_end()["aborted"] == 1


def test_a_websocket_that_ends_in_time_is_not_aborted(service, old):
    client = service.client()
    client.send(HANDSHAKE)
    client.read_until(b"\r\n\r\n")
    service.start()
    old.drain()
    client.send(b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big"))
    assert client.read(2) == b"\x88\x02"
    client.socket.close()
    assert old.wait_for_end()["aborted"] == 0


def test_a_request_beyond_the_deadline_is_aborted_and_counted(service, old):
    client = service.client()
    client.send(request(b"body")[:-1])
    service.client().ask()  # then what was sent before has arrived
    service.start()
    old.drain(seconds=0.05)
    client.is_closed()
    stats = old.wait_for_end()
    assert (stats["aborted"], stats["handed_over"]) == (1, 1)


def test_health_routes_do_not_count(service, old):
    client = service.client()
    client.send(request(path="/healthz") + request() + request(path="/healthz"))
    for _ in range(3):
        client.answer()
    service.start()
    old.drain()
    assert old.wait_for_end()["requests"] == 1


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
