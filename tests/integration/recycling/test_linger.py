"""Where connections cannot be handed over: they stay open until an answer says that they close."""

from __future__ import annotations

from tests.integration.recycling.service import request


def test_an_idle_connection_that_lingers_is_told_to_close_by_its_next_answer(service, old):
    clients = [service.client() for _ in range(3)]
    for client in clients:
        client.ask()
    old.drain("linger")
    answers = [client.ask() for client in clients]
    assert [answer.headers["connection"] for answer in answers] == ["close"] * 3
    assert all(client.is_closed() for client in clients)
    stats = old.wait_for_end()
    assert (stats["lingered"], stats["aborted"]) == (3, 0)


def test_an_idle_connection_is_closed_when_the_time_to_linger_is_over(service, old):
    client = service.client()
    client.ask()
    old.drain("linger", linger=0.05)
    assert client.is_closed()
    assert old.wait_for_end()["aborted"] == 0


def test_a_drain_can_go_over_to_lingering(service, old):
    """As when the supervisor is gone, and nobody takes the connections."""
    idle = [service.client() for _ in range(2)]
    idle[0].ask()
    busy = service.client()
    busy.send(request(path="/slow"))
    idle[1].ask()  # then what was sent before has arrived
    service.start()
    old.drain()
    for client in idle:
        client.ask()  # handed over by now
    old.drain("linger")
    answer = busy.answer()
    assert (answer.pid, answer.headers["connection"]) == (old.pid, "close")
    assert old.wait_for_end()["aborted"] == 0
