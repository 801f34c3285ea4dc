"""Recycling under load: no request fails, and no client with a kept connection connects again.

`make test` sends 5,000 POSTs over ten recycles and more, in eight combinations that have each pair
of settings; `make soak` sends 100,000 over 150 in all sixteen, and writes what it saw to the file
that MEMGUARD_SOAK_RESULTS names.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from bench.recycle.answers import pid_in
from bench.recycle.load import Load, send
from bench.stamp import stamp

from memguard_native.errors import SupervisorError

from ..integration.recycling.supervised import children_of, is_alive, service

pytestmark = pytest.mark.stress

ROOT = Path(__file__).parents[2]
APP = "bench.recycle.app:app"
UNLIMITED = {"max_requests": None}
SETTINGS = {
    "workers": (1, 2),
    "loop": ("uvloop", "asyncio"),
    "start": ("zygote", "spawn"),
    "new_connections": (0.0, 0.5),
}
ALL = [dict(zip(SETTINGS, values, strict=True)) for values in itertools.product(*SETTINGS.values())]
# The last setting follows from the parity of the others: each pair of values occurs.
PAIRS = [one for one in ALL if sum(SETTINGS[name].index(one[name]) for name in SETTINGS) % 2 == 0]


def named(combination):
    return "-".join(map(str, combination.values()))


def load_on(directory, combination, *, requests, max_requests, think, clients=8):
    """(result of the load, what the supervisor says of it). With `think` it lasts long enough."""
    http = (
        "h11" if combination["workers"] == 2 and combination["loop"] == "asyncio" else "httptools"
    )
    workers = combination["workers"]
    policy = {"max_requests": max_requests, "jitter": 0.1}
    with service(
        directory,
        app=APP,
        path=ROOT,
        workers=workers,
        loop=combination["loop"],
        start=combination["start"],
        http=http,
        policy=policy,
        log_level="warning",
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
    for first, second in itertools.combinations(SETTINGS, 2):
        seen = {(one[first], one[second]) for one in PAIRS}
        assert seen == set(itertools.product(SETTINGS[first], SETTINGS[second]))


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
        rows.append(
            {
                **combination,
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
        )
    assert sum(row["requests"] for row in rows) >= 100_000
    assert sum(row["recycles"] for row in rows) >= 150
    if path := os.environ.get("MEMGUARD_SOAK_RESULTS"):
        Path(path).write_text(json.dumps({"stamp": stamp(), "rows": rows}, indent=1) + "\n")


def test_thirty_two_clients_half_of_them_new(tmp_path):
    combination = {"workers": 2, "loop": "uvloop", "start": "zygote", "new_connections": 0.5}
    result, totals = load_on(
        tmp_path, combination, requests=1500, max_requests=100, think=0.02, clients=32
    )
    check(result, totals, requests=1500, recycles=3)


def test_two_thousand_idle_connections_are_handed_over_at_once(tmp_path):
    """More than a queue of descriptors holds: workers and supervisor wait for each other."""
    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n"
    with (
        service(tmp_path, app=APP, path=ROOT, policy=UNLIMITED, log_level="warning") as running,
        ExitStack() as stack,
    ):
        clients = []
        for _ in range(2000):
            client = socket.create_connection(("127.0.0.1", running.port), timeout=20)
            clients.append(stack.enter_context(client))
        before = {_asked(client, request, b"a") for client in clients}
        running.recycle(0)
        (record,) = running.until(running.recycles)
        after = {_asked(client, request, b"b") for client in clients}
        assert (record["handed_over"], record["aborted"]) == (2000, 0)
        assert (len(before), len(after), before & after) == (1, 1, set())


def _asked(client, request, body):
    """The process that has answered."""
    client.sendall(request + body)
    answer = b""
    while (pid := pid_in(answer.partition(b"\r\n\r\n")[2], body)) is None:
        more = client.recv(1000)  # times out
        assert more, answer
        answer += more
    return pid


@pytest.mark.parametrize(
    "kills", [20, pytest.param(200, marks=pytest.mark.slow)], ids=["20", "200"]
)
def test_only_what_runs_in_a_killed_worker_fails(tmp_path, kills):
    """Each kill costs at most the requests that are in the worker: one for each client."""
    clients = 4
    with service(tmp_path, app=APP, path=ROOT, workers=2, log_level="warning") as running:
        killed = threading.Thread(target=lambda: _kill(running, kills, done))
        done = threading.Event()
        results = []
        killed.start()
        while not done.is_set():
            load = Load(port=running.port, clients=clients, requests=500)
            results.append(asyncio.run(send(load)))
        killed.join()
        last = asyncio.run(send(Load(port=running.port, clients=clients, requests=500)))
        assert last.failed == 0
        failed = sum(one.failed for one in results)
        assert failed <= kills * clients
        assert sum(len(one.answers) for one in results) + failed == 500 * len(results)
        running.until(lambda: len(running.workers("ready")) == 2 == len(running.workers()))
        workers = {one["pid"] for one in running.workers()}
        zygotes = [pid for pid in children_of(running.process.pid) if pid not in workers]
        assert len(zygotes) == 1
        assert all(map(is_alive, [*workers, *zygotes]))


def _kill(running, kills, done):
    """Workers that serve, workers that drain, and now and then the zygote."""
    draw = random.Random(7)
    killed = 0
    try:
        while killed < kills:
            target = draw.choice(running.until(lambda: _all_ready(running)))
            number, generation = target["number"], target["generation"]
            with suppress(SupervisorError):  # it is being replaced already
                running.recycle(number)
            if killed % 3 == 0:
                # One that was replaced in peace before does not go on crashing: no back-off.
                running.until(lambda generation=generation: _is_gone(running, generation))
                ready = running.until(lambda: _all_ready(running))
                victim = next(one["pid"] for one in ready if one["number"] == number)
            elif killed % 3 == 1:
                victim = running.until(lambda generation=generation: _draining(running, generation))
            else:
                workers = {one["pid"] for one in running.workers()}
                zygotes = [p for p in children_of(running.process.pid) if p not in workers]
                victim = draw.choice(zygotes) if len(zygotes) == 1 else None
            if victim is not None and victim is not True:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed += 1
    finally:
        done.set()


def _draining(running, generation):
    """Its process number while it drains; True: it is gone already."""
    for one in running.workers():
        if one["generation"] == generation:
            return one["pid"] if one["state"] == "draining" else None
    return True


def _all_ready(running):
    ready = running.workers("ready")
    return ready if len(ready) == 2 else None


def _is_gone(running, generation):
    return all(one["generation"] != generation for one in running.workers())
