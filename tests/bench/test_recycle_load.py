"""The load on servers that replace workers, against one that fails on purpose in every way."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable

import pytest
from bench.recycle.answers import answer_to
from bench.recycle.load import Load, send
from bench.recycle.results import Answer, Cause, Failed, Failure, Result

from bench import servers

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Does with the n-th request what the n-th deed says, and with all later ones what is right."""

    def __init__(self, deeds: Iterable[Callable[..., bool]] = ()) -> None:
        self.deeds = list(deeds)
        self.bodies: list[bytes] = []
        self.port = 0

    async def under(self, **load: object) -> Result:
        listening = await asyncio.start_server(self._serve, servers.HOST, 0)
        async with listening:
            self.port = listening.sockets[0].getsockname()[1]
            return await send(Load(port=self.port, pause=0.0, **load))  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            goes_on = True
            while goes_on:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.partition("content-length: ")[2].split()[0])
                body = await reader.readexactly(length)
                self.bodies.append(body)
                deed = self.deeds.pop(0) if self.deeds else right
                goes_on = deed(writer, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answered(body: bytes, fields: str = "") -> bytes:
    answer = answer_to(body, os.getpid())
    return OK + f"{fields}Content-Length: {len(answer)}\r\n\r\n".encode() + answer


def right(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(answered(body))
    return True


def closing(writer: asyncio.StreamWriter, body: bytes) -> bool:
    # In one turn, so that the client finds the end where it finds the answer.
    writer.write(answered(body))
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
    return False


def telling(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(answered(body, "Connection: close\r\n"))
    return False


def reset(writer: asyncio.StreamWriter, body: bytes) -> bool:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    return False


def empty(writer: asyncio.StreamWriter, body: bytes) -> bool:
    return False


def cut(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(answered(body)[:-1])
    return False


def silent(writer: asyncio.StreamWriter, body: bytes) -> bool:
    return True


def unavailable(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    return False


def of_another(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(answered(body + b"more"))
    return True


def without_length(writer: asyncio.StreamWriter, body: bytes) -> bool:
    writer.write(OK + b"\r\n" + answer_to(body, 1))
    return False


def under(server: Server, **load: object) -> Result:
    return asyncio.run(server.under(**load))


def test_every_answer_is_counted_with_its_process() -> None:
    result = under(Server(), clients=3, requests=20)
    assert (len(result.answers), result.failed, result.requests) == (20, 0, 20)
    assert result.answered_by_pid == {os.getpid(): 20}
    assert (result.connects, result.extra_connects) == (3, 0)
    assert 0.0 < result.p50 <= result.p99 <= result.p999 <= result.max
    assert result.rate > 0.0


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (reset, Failure.reset),
        (empty, Failure.empty),
        (cut, Failure.cut),
        (silent, Failure.timeout),
        (unavailable, Failure.status),
        (of_another, Failure.wrong),
        (without_length, Failure.wrong),
    ],
)
def test_failure_is_counted_by_its_kind_and_nothing_is_sent_again(
    deed: Callable[..., bool], kind: Failure
) -> None:
    server = Server([right, deed, right])
    result = under(server, clients=1, requests=4, timeout=0.2)
    assert result.failed_by_kind == {kind: 1}
    assert len(result.answers) == 3
    assert len(server.bodies) == len(set(server.bodies)) == 4
    assert result.connections == {Cause.first: 1, Cause.failed: 1}
    assert result.extra_connects == 1


def test_failure_is_told_with_the_client_s_port_of_its_connection() -> None:
    async def ports() -> tuple[Result, list[int]]:
        server, seen = Server([]), []

        def noted(writer: asyncio.StreamWriter, body: bytes) -> bool:
            seen.append(writer.get_extra_info("peername")[1])
            return empty(writer, body)

        server.deeds = [right, noted, right]
        return await server.under(clients=1, requests=3), seen

    result, seen = asyncio.run(ports())
    assert [failed.port for failed in result.failures] == seen


def test_connection_that_nobody_accepts_is_refused() -> None:
    load = Load(port=servers.free_port(), clients=2, requests=4, pause=0.0)
    result = asyncio.run(send(load))
    assert result.failed_by_kind == {Failure.refused: 4}


def test_client_waits_before_it_tries_again() -> None:
    load = Load(port=servers.free_port(), clients=1, seconds=0.2, pause=0.05)
    assert 2 <= asyncio.run(send(load)).failed <= 4


@pytest.mark.parametrize("think", [0.0, 0.02], ids=["at once", "later"])
def test_end_of_an_idle_connection_is_no_failure_but_a_silent_reconnect(think: float) -> None:
    result = under(Server([right, closing]), clients=1, requests=4, think=think)
    assert (len(result.answers), result.failed) == (4, 0)
    assert (result.silent_reconnects, result.extra_connects, result.connects) == (1, 1, 2)


def test_client_that_is_told_of_the_end_connects_anew() -> None:
    result = under(Server([telling]), clients=1, requests=3)
    assert (len(result.answers), result.failed) == (3, 0)
    assert result.connections == {Cause.first: 1, Cause.told: 1}
    assert result.extra_connects == 1


def test_last_connection_that_ends_is_not_made_again() -> None:
    assert under(Server([right, closing]), clients=1, requests=2).connects == 1


@pytest.mark.parametrize(("share", "fewest", "most"), [(1.0, 39, 39), (0.5, 8, 32), (0.0, 0, 0)])
def test_share_of_the_requests_goes_over_new_connections(
    share: float, fewest: int, most: int
) -> None:
    result = under(Server(), clients=1, requests=40, new_connections=share)
    assert (result.failed, result.extra_connects) == (0, 0)
    assert fewest <= result.connections[Cause.chosen] <= most


def test_body_that_is_larger_than_a_buffer_arrives_whole() -> None:
    server = Server()
    result = under(server, clients=1, requests=2, body_bytes=8_000_000)
    assert (len(result.answers), result.failed) == (2, 0)
    assert [len(body) for body in server.bodies] == [8_000_000] * 2


def test_load_ends_when_its_time_is_over() -> None:
    result = under(Server(), clients=2, seconds=0.1)
    assert 0.1 <= result.ended_at - result.started_at < 5.0
    assert len(result.answers) > 2


def test_what_is_not_the_fault_of_the_server_is_an_error() -> None:
    load = Load(host="255.255.255.255", port=1, requests=1)
    with pytest.raises(OSError, match=r"Network is unreachable|Permission denied"):
        asyncio.run(send(load))


def test_load_that_is_cancelled_leaves_no_connection() -> None:
    async def cancelled() -> list[bytes]:
        server = Server([silent])
        loading = asyncio.create_task(server.under(clients=1, requests=2))
        while not server.bodies:
            await asyncio.sleep(0.001)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        return server.bodies

    assert len(asyncio.run(cancelled())) == 1


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({}, "needs an end"),
        ({"requests": 1, "clients": 0}, "clients=0"),
        ({"requests": 1, "new_connections": 1.5}, r"new_connections=1\.5"),
    ],
)
def test_load_that_cannot_be_sent_is_refused(load: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Load(port=1, **load)  # type: ignore[arg-type]


# --- results ----------------------------------------------------------------------------------


def result_of(answers: Iterable[tuple[float, float]], failures: Iterable[Failed] = ()) -> Result:
    return Result(
        started_at=10.0,
        ended_at=20.0,
        answers=tuple(Answer(at, latency, 1) for at, latency in answers),
        failures=tuple(failures),
        connections={},
    )


def test_latency_is_what_a_share_of_the_answers_did_not_exceed() -> None:
    result = result_of((10.0, number / 1000) for number in range(1000, 0, -1))
    assert (result.p50, result.p99, result.p999, result.max) == (0.5, 0.99, 0.999, 1.0)


def test_longest_silence_reaches_to_both_ends() -> None:
    assert result_of([(13.0, 0.1), (18.0, 0.1)]).longest_silence == 5.0
    assert result_of([(14.0, 0.1), (14.5, 0.1)]).longest_silence == 5.5
    assert result_of([]).longest_silence == 10.0


def test_no_answer_has_no_latency() -> None:
    assert result_of([]).p50 != result_of([]).p50
