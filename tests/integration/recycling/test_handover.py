"""Connections over a recycle, in every state that a client can have brought them into.

Two real workers share a listener; what the old one hands out is relayed to the new one. Each test
runs on asyncio and uvloop, with httptools and h11.
"""

from __future__ import annotations

import pytest

from tests.integration.recycling.service import Service, Zygote, request

KINDS = [(loop, http) for loop in ("asyncio", "uvloop") for http in ("httptools", "h11")]


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(params=KINDS, ids="-".join)
def service(zygote, request):
    loop, http = request.param
    service = Service(zygote, loop=loop, http=http)
    yield service
    service.close()


@pytest.fixture
def old(service):
    return service.start()


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
