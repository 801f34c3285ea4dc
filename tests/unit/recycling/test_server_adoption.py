"""Taking in a connection of another worker: told before it is read, and never held up for ever."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from tests.unit.recycling.served import REQUEST, serving, until

both = pytest.mark.parametrize("http", ["httptools", "h11"])


def pair():
    """A client's socket, and the descriptor of its connection."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    return ours, theirs.detach()


@both
def test_a_connection_is_acknowledged_before_its_first_byte_is_read(http):
    async def main():
        async with serving(http=http) as (served, _):
            client, descriptor = pair()
            client.sendall(REQUEST)
            copy = socket.socket(fileno=os.dup(descriptor))
            unread = []
            served.server.adopt(descriptor, lambda: unread.append(copy.recv(99, socket.MSG_PEEK)))
            await until(lambda: served.counted)
            assert unread == [REQUEST]
            assert served.server.adopted == 1
            copy.close()
            client.close()

    asyncio.run(main())


@both
def test_an_adopted_connection_that_never_asks_is_closed_in_time(http):
    async def main():
        async with serving(http=http, timeout_keep_alive=0.05) as (served, _):
            client, descriptor = pair()
            client.setblocking(False)
            served.server.adopt(descriptor, lambda: None)
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(client, 1), 10) == b""
            client.close()

    asyncio.run(main())


def test_a_connection_whose_acknowledgement_fails_is_left_unread_for_another(caplog):
    async def main():
        async with serving() as (served, _):
            client, descriptor = pair()
            client.sendall(REQUEST)
            copy = socket.socket(fileno=os.dup(descriptor))

            def accepted():
                raise BrokenPipeError("the supervisor is gone")

            served.server.adopt(descriptor, accepted)
            await until(lambda: "not taken over" in caplog.text)
            assert copy.recv(99) == REQUEST
            assert (served.server.adopted, served.server.connections) == (0, 0)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
            copy.close()
            client.close()

    asyncio.run(main())
    assert "was not taken over: the supervisor is gone" in caplog.text


def test_an_acknowledgement_without_room_is_tried_again():
    async def main():
        async with serving() as (served, _):
            client, descriptor = pair()
            attempts = []

            def accepted():
                attempts.append(served.server.connections)
                if len(attempts) < 3:
                    raise BlockingIOError

            served.server.adopt(descriptor, accepted)
            await until(lambda: served.server.adopted)
            assert attempts == [0, 0, 0]
            client.close()

    asyncio.run(main())


def test_a_drain_waits_for_a_connection_that_is_on_its_way_in():
    async def main():
        async with serving() as (served, task):
            client, descriptor = pair()
            may_accept = []

            def accepted():
                if not may_accept:
                    raise BlockingIOError

            served.server.adopt(descriptor, accepted)
            served.drain()
            await asyncio.sleep(0.06)  # three quiet ticks are 0.03
            assert not task.done()
            may_accept.append(True)
            await asyncio.wait_for(task, 10)
            assert (served.server.adopted, served.server.handed_over) == (1, 1)
            client.close()

    asyncio.run(main())


def test_a_server_that_is_drained_takes_nothing_in():
    async def main():
        async with serving() as (served, task):
            served.drain()
            await task
            client, descriptor = pair()
            told = []
            served.server.adopt(descriptor, lambda: told.append(True))
            assert client.recv(1) == b""
            assert told == []
            client.close()

    asyncio.run(main())
