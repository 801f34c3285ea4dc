"""Recycling under load: no request fails, and no client with a kept connection connects again.

`make test` sends 5,000 POSTs over ten recycles and more, in eight combinations that have each pair
of settings; `make soak` sends 100,000 over 150 in all sixteen, and writes what it saw below the
folder that MEMGUARD_SOAK_RESULTS names (bench/results).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from bench.recycle import soak
from bench.recycle.load import Load, send

from ..integration.recycling.supervised import service
from . import recycling_drivers as drivers

pytestmark = pytest.mark.stress

APP = "bench.recycle.app:app"
UNLIMITED = {"max_requests": None}
BACKLOG = 16
SETTINGS = {
    "workers": (1, 2),
    "loop": ("uvloop", "asyncio"),
    "start": ("zygote", "spawn"),
    "new_connections": (0.0, 0.5),
}


def _combination(chosen):
    """The parser of HTTP follows from workers and loop, so that it meets each of the others."""
    values = [SETTINGS[name][index] for name, index in zip(SETTINGS, chosen, strict=True)]
    http = ("httptools", "h11")[chosen[0] ^ chosen[1]]
    return {**dict(zip(SETTINGS, values, strict=True)), "http": http}


CHOICES = list(itertools.product((0, 1), repeat=len(SETTINGS)))
ALL = [_combination(chosen) for chosen in CHOICES]
# The last setting follows from the parity of the others: each pair of values occurs.
PAIRS = [_combination(chosen) for chosen in CHOICES if sum(chosen) % 2 == 0]


def named(combination):
    return "-".join(map(str, combination.values()))


def load_on(directory, combination, *, requests, max_requests, think, clients=8):
    """(result of the load, what the supervisor says of it). With `think` it lasts long enough."""
    workers = combination["workers"]
    policy = {"max_requests": max_requests, "jitter": 0.1}
    server = {name: combination[name] for name in ("workers", "loop", "start", "http")}
    with service(
        directory, app=APP, path=drivers.ROOT, policy=policy, log_level="warning", **server
    ) as running:
        load = Load(
            port=running.port,
            clients=clients,
            requests=requests,
            new_connections=combination["new_connections"],
            think=think,
        )
        result = asyncio.run(send(load))
        running.until(lambda: len(running.workers("ready")) == workers == len(running.workers()))
        return result, running.totals()


def check(result, totals, *, requests, recycles):
    assert not result.failed, result.failed_by_kind
    assert len(result.answers) == requests
    assert result.extra_connects == 0, result.connections
    assert sum(totals["recycles"].values()) >= recycles
    assert set(totals["recycles"]) == {"requests"}
    assert totals["handed_over"] > 0
    assert totals["aborted"] == 0
    assert totals["capacity_gap_seconds"] == 0


@pytest.mark.parametrize("combination", PAIRS, ids=named)
def test_no_request_fails_and_nobody_connects_again(tmp_path, combination):
    result, totals = load_on(tmp_path, combination, requests=640, max_requests=60, think=0.02)
    # A fresh process takes longer than a fork, and the load does not wait. Twelve in all.
    recycles = 2 if combination["start"] == "zygote" else 1
    check(result, totals, requests=640, recycles=recycles)


def test_the_pairs_are_all_there():
    for first, second in itertools.combinations(ALL[0], 2):
        seen, possible = (
            {(one[first], one[second]) for one in combinations} for combinations in (PAIRS, ALL)
        )
        assert seen == possible
        assert len(possible) == 4


@pytest.mark.slow
def test_a_hundred_thousand_requests_over_a_hundred_and_fifty_recycles(tmp_path):
    rows = []
    for number, combination in enumerate(ALL):
        directory = tmp_path / str(number)
        directory.mkdir()
        result, totals = load_on(
            directory, combination, requests=6400, max_requests=100, think=0.01
        )
        check(result, totals, requests=6400, recycles=10)
        rows.append({**combination, **_row(result, totals)})
    total = soak.total(rows)
    assert total["requests"] >= 100_000
    assert total["recycles"] >= 150
    if results := os.environ.get("MEMGUARD_SOAK_RESULTS"):
        soak.write(rows, Path(results))


def _row(result, totals):
    return {
        "requests": result.requests,
        "failed": result.failed,
        "recycles": sum(totals["recycles"].values()),
        "extra_connects": result.extra_connects,
        "handed_over": totals["handed_over"],
        "aborted": totals["aborted"],
        "capacity_gap_seconds": totals["capacity_gap_seconds"],
        "p99_ms": round(result.p99 * 1000, 1),
        "max_ms": round(result.max * 1000, 1),
    }


def test_thirty_two_clients_half_of_them_new(tmp_path):
    combination = {
        "workers": 2,
        "loop": "uvloop",
        "start": "zygote",
        "new_connections": 0.5,
        "http": "httptools",
    }
    result, totals = load_on(
        tmp_path, combination, requests=1500, max_requests=100, think=0.02, clients=32
    )
    check(result, totals, requests=1500, recycles=3)


# --- many connections -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "descriptors"),
    [
        (2000, None),
        # The supervisor may hold 16 for others then: those that drain have to wait.
        (100, 160),
    ],
)
@pytest.mark.parametrize("loop", SETTINGS["loop"])
def test_idle_connections_are_handed_over_at_once(tmp_path, count, descriptors, loop):
    """More than a queue of descriptors holds: workers and supervisor wait for each other."""
    with (
        service(
            tmp_path,
            app=APP,
            path=drivers.ROOT,
            loop=loop,
            policy=UNLIMITED,
            log_level="warning",
            descriptors=descriptors,
        ) as running,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(closing(drivers.Client(running.port))) for _ in range(count)]
        (old,) = {client.ask() for client in clients}
        running.recycle(0)
        (record,) = running.until(running.recycles)
        (new,) = {client.ask() for client in clients}
        assert new != old
        assert (record["handed_over"], record["aborted"]) == (count, 0)
        # And once more, with requests on all of them that arrive meanwhile.
        running.recycle(0)
        for client in clients:
            client.send()
        answered = Counter(client.answer() for client in clients)
        running.until(lambda: len(running.recycles()) == 2)
        (newest,) = {client.ask() for client in clients}
        assert set(answered) <= {new, newest}
        assert running.totals()["aborted"] == 0


def test_what_a_full_accept_queue_holds_and_turns_away_is_answered(tmp_path):
    """The worker is stopped, so that nobody accepts; only its replacement does again."""
    with (
        service(
            tmp_path,
            app=APP,
            path=drivers.ROOT,
            policy=UNLIMITED,
            log_level="warning",
            backlog=BACKLOG,
        ) as running,
        ExitStack() as stack,
    ):
        (old,) = [one["pid"] for one in running.workers()]
        assert drivers.stop(old)
        connections = [_begin_to_connect(stack, running.port) for _ in range(3 * BACKLOG)]
        running.until(lambda: drivers.accept_queue(running.port) > BACKLOG)
        running.recycle(0)
        running.until(lambda: running.workers("draining"))
        os.kill(old, signal.SIGCONT)
        clients = [drivers.Client(running.port, connection) for connection in connections]
        answered = Counter(client.ask() for client in clients)
        (record,) = running.until(running.recycles)
        assert old not in answered
        assert sum(answered.values()) == len(connections)
        assert (record["pid"], record["aborted"]) == (old, 0)


def _begin_to_connect(stack, port):
    connection = stack.enter_context(socket.socket())
    connection.settimeout(0.0)
    connection.connect_ex(("127.0.0.1", port))
    connection.settimeout(drivers.PATIENCE)  # sendall() then waits until it is connected
    return connection
