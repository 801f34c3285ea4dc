"""Memory as the reason to replace a worker, with real processes and real memory.

Memory is looked at once a second at most, so three samples take three seconds.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from contextlib import contextmanager

import pytest
from bench.recycle.load import Load, send

from memguard_native.recycling.group import read_group

from .supervised import HERE, is_alive, service

pytestmark = pytest.mark.stress

MIB = 2**20
ROOT = HERE.parents[2]
QUICK = {"min_lifetime": 0.0, "sample_interval": 0.1, "max_requests": None}


@contextmanager
def served(directory, policy, **arguments):
    arguments = {"app": "memory_application:app", "path": f"{HERE}:{ROOT}", **arguments}
    with service(directory, policy={**QUICK, **policy}, **arguments) as running:
        yield running


class Visitor:
    """A kept connection, whose requests reach one worker for as long as that is not replaced."""

    def __init__(self, running):
        self._connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def request(self, path):
        """The process that has answered."""
        self._connection.request("POST", path)
        answer = self._connection.getresponse()
        assert answer.status == 200
        return int(answer.read().split()[0])


class Clients:
    """A load that runs aside, until it is told to end."""

    def __init__(self, running, path="/nothing", *, clients=4, think=0.01):
        self._ended = False
        self._results = []
        self._load = Load(
            port=running.port, path=path, clients=clients, think=think, seconds=0.5,
            new_connections=0.1,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._send)

    def _send(self):
        while not self._ended:
            self._results.append(asyncio.run(send(self._load)))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        self._thread.join()

    @property
    def answers(self):
        return [answer for result in self._results for answer in result.answers]

    @property
    def failures(self):
        return [failure for result in self._results for failure in result.failures]


def only(running):
    (worker,) = running.workers("ready")
    return worker


# --- a leak ---------------------------------------------------------------------------------------

# The window of 80 minutes finds 150 MB/hour: 2.5 MB a minute.
LEAK_MINUTE_S = 0.05
LEAK = f"/leak?mib_per_s={150 / 60 / LEAK_MINUTE_S}"
LEAK_LIVES_MIB = 450
"""What a worker leaks in 180 minutes, and it is found within 100."""


@pytest.mark.parametrize("recycles", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_memory_of_a_leaking_application_stays_bounded(tmp_path, recycles):
    policy = {"forecast_horizon": None}
    most = 0
    with served(tmp_path, policy, minute_s=LEAK_MINUTE_S) as running:
        with Clients(running, LEAK) as clients:

            def are_enough():
                nonlocal most
                own = [one["own_bytes"] or 0 for one in running.workers()]
                most = max(most, *own)
                return len(running.recycles()) >= recycles

            running.until(are_enough, 40.0 * recycles)
        assert clients.failures == []
        assert len(clients.answers) > 100 * recycles
        records = running.recycles()
        assert {record["reason"] for record in records} == {"leak"}
        assert all(record["evidence"]["rate_mb_per_hour"] > 75 for record in records)
        assert all(record["freed_bytes"] > 50 * MIB for record in records)
        assert "worker 0 was replaced: leak; at rate_mb_per_hour=" in running.told()
    assert most < LEAK_LIVES_MIB * MIB


def test_memory_that_may_soon_be_at_the_limit_is_a_reason_as_well(tmp_path):
    policy = {"on_leak": False, "forecast_horizon": 3 * 3600.0}
    environment = {"MEMGUARD_LIMIT": "500MiB"}
    with served(tmp_path, policy, minute_s=LEAK_MINUTE_S, environment=environment) as running:
        with Clients(running, LEAK) as clients:
            record = running.until(running.recycles, 60.0)[0]
        assert clients.failures == []
        assert record["reason"] == "forecast"
        assert record["evidence"]["earliest_seconds"] <= 3 * 3600.0
        assert record["private_bytes_before"] < 500 * MIB


# --- a worker's limit -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["zygote", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_over_its_limit_is_replaced_and_no_client_notices(tmp_path, start):
    policy = {"max_memory": 100 * MIB, "trim_first": False}
    with served(tmp_path, policy, start=start) as running, Visitor(running) as visitor:
        with Clients(running) as clients:
            old = visitor.request("/keep?mib=150")
            record = running.until(running.recycles)[0]
            assert visitor.request("/nothing") != old
        assert clients.failures == []
        assert (record["reason"], record["pid"]) == ("memory", old)
        assert record["evidence"]["max_bytes"] == 100 * MIB
        own_bytes, base = record["evidence"]["own_bytes"], record["private_bytes_after"]
        assert own_bytes - base == pytest.approx(150 * MIB, rel=0.1)
        assert record["freed_bytes"] == pytest.approx(150 * MIB, rel=0.1)
        assert only(running)["own_bytes"] < 60 * MIB


@pytest.mark.slow
def test_garbage_collection_and_trim_come_before_a_replacement(tmp_path):
    policy = {"max_memory": 100 * MIB}
    with served(tmp_path, policy) as running, Visitor(running) as visitor:
        visitor.request("/keep?mib=150")
        record = running.until(running.recycles)[0]
        assert record["reason"] == "memory"
        assert record["evidence"]["after_trim_bytes"] > 100 * MIB


def test_a_spike_replaces_nobody(tmp_path):
    policy = {"max_memory": 100 * MIB, "trim_first": False}
    with served(tmp_path, policy) as running:
        spike = threading.Thread(target=lambda: visit(running, "/spike?mib=200&seconds=1.5"))
        spike.start()
        running.until(lambda: only(running)["own_bytes"] > 150 * MIB)
        spike.join()
        running.until(lambda: only(running)["own_bytes"] < 50 * MIB)
        samples_pass(running, 1)
        assert running.recycles() == []
        assert "asks to be replaced" not in running.told()


def visit(running, path):
    """On a connection of its own."""
    with Visitor(running) as visitor:
        return visitor.request(path)


def samples_pass(running, count):
    """So many seconds, by the worker's own heart: it samples once in each."""
    end = time.monotonic() + count
    running.until(lambda: time.monotonic() > end, count + 20.0)


def test_fragmentation_is_trimmed_and_replaces_nobody(tmp_path):
    policy = {"max_memory": 100 * MIB}
    with served(tmp_path, policy) as running:
        visit(running, "/fragment?mib=200")
        running.until(lambda: only(running)["own_bytes"] > 150 * MIB)
        running.until(lambda: only(running)["own_bytes"] < 50 * MIB)
        samples_pass(running, 1)
        assert running.recycles() == []
        assert "asks to be replaced" not in running.told()
        assert running.told().count("after collecting and trimming") == 1


@pytest.mark.slow
def test_a_limit_below_what_a_worker_begins_with_is_told_once(tmp_path):
    policy = {"max_memory": 100 * MIB, "trim_first": False}
    environment = {"APP_START_MIB": "150"}
    with served(tmp_path, policy, environment=environment) as running:
        before = only(running)["pid"]
        running.until(lambda: "worker 0 asks to be replaced: memory" in running.told())
        samples_pass(running, 2)
        assert running.told().count("max_memory, 100 MiB, is too low") == 1
        assert only(running)["pid"] == before
        assert running.recycles() == []


@pytest.mark.slow
def test_a_limit_that_is_too_low_does_not_hold_up_other_reasons(tmp_path):
    policy = {"max_memory": 100 * MIB, "trim_first": False, "max_requests": 10, "jitter": 0.0}
    environment = {"APP_START_MIB": "150"}
    with served(tmp_path, policy, environment=environment) as running, Visitor(running) as visitor:
        running.until(lambda: "worker 0 asks to be replaced: memory" in running.told())
        for _ in range(10):
            visitor.request("/nothing")
        record = running.until(running.recycles)[0]
        assert (record["reason"], record["evidence"]["requests"]) == ("requests", 10)


@pytest.mark.slow
def test_a_dry_run_names_the_worker_that_has_too_much_memory_and_keeps_it(tmp_path):
    policy = {"max_memory": 100 * MIB, "trim_first": False}
    with served(tmp_path, policy, dry_run=True) as running, Visitor(running) as visitor:
        old = visitor.request("/keep?mib=150")
        running.until(lambda: "worker 0 would be replaced: memory (dry run)" in running.told())
        samples_pass(running, 2)
        assert visitor.request("/nothing") == old
        assert running.recycles() == []


def test_a_forked_worker_has_next_to_nothing_of_its_own(tmp_path):
    arguments = {"preload": "memory_application:preload", "start": "zygote", "workers": 2}
    with served(tmp_path, {}, environment={"APP_PRELOAD_MIB": "200"}, **arguments) as running:
        for worker in running.workers("ready"):
            assert worker["private_bytes"] > 200 * MIB, "as the kernel shows it"
            assert worker["own_bytes"] < 5 * MIB + 0.02 * 200 * MIB


# --- the ceiling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("while_", ["sleep_s", "block_s"])
def test_a_worker_at_the_ceiling_takes_nothing_more_and_is_killed(tmp_path, while_):
    crossed = tmp_path / "crossed"
    environment = {"APP_CROSSED": str(crossed)}
    with served(
        tmp_path, {"hard_memory": 300 * MIB}, workers=2, environment=environment
    ) as running:
        # Its request does not end, and so keeps it from ending before it is killed.
        path = f"/keep?mib=350&{while_}=20"
        cut = threading.Thread(target=lambda: expect_to_be_cut(running, path))
        cut.start()
        running.until(lambda: crossed.exists() and crossed.read_text().endswith("\n"))
        time_, pid = crossed.read_text().split()
        at, victim = float(time_), int(pid)
        answers = []
        while is_alive(victim):
            begun = time.monotonic()
            answers.append((begun - at, visit(running, "/nothing")))
        died = time.monotonic() - at
        cut.join()
        assert died < 2.5  # measured: 2.0 to 2.15, and 2.33 with all processors busy
        later = [pid for begun, pid in answers if begun >= 0.3]
        assert later, "others serve on"
        assert victim not in later
        record = running.until(running.recycles)[0]
        assert (record["reason"], record["pid"]) == ("ceiling", victim)
        assert record["evidence"]["own_bytes"] > record["evidence"]["hard_bytes"] == 300 * MIB
        running.until(lambda: len(running.workers("ready")) == 2)


def expect_to_be_cut(running, path):
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        visit(running, path)


def test_a_lone_worker_at_the_ceiling_is_relieved_and_no_client_notices(tmp_path):
    with served(tmp_path, {"hard_memory": 100 * MIB}) as running:
        with Clients(running) as clients:
            visit(running, "/keep?mib=150")
            record = running.until(running.recycles)[0]
            running.until(lambda: running.workers("ready"))
        assert record["reason"] == "ceiling"
        assert record["drain_s"] < 2.0
        assert clients.failures == []


@pytest.mark.slow
def test_a_dry_run_kills_nobody_at_the_ceiling(tmp_path):
    policy = {"hard_memory": 100 * MIB}
    with served(tmp_path, policy, dry_run=True) as running, Visitor(running) as visitor:
        old = visitor.request("/keep?mib=150")
        running.until(lambda: "worker 0 would be replaced: ceiling (dry run)" in running.told())
        samples_pass(running, 3)
        assert visitor.request("/nothing") == old
        assert running.recycles() == []


# --- all together ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_when_all_together_have_too_much_the_one_that_has_grown_most_goes(tmp_path):
    taken = read_group().taken_bytes
    # Other processes of this machine come and go meanwhile.
    policy = {"max_group_memory": taken + 600 * MIB}
    with served(tmp_path, policy, workers=2) as running, Visitor(running) as visitor:
        victim = visitor.request("/keep?mib=100")
        with Clients(running, clients=2) as clients:
            running.until(lambda: grown(running, visitor, victim), 60.0)
        record = running.recycles()[0]
        assert (record["reason"], record["pid"]) == ("group", victim)
        assert clients.failures == []


def grown(running, visitor, victim):
    """Another 100 MiB a second for as long as it serves."""
    if running.recycles():
        return True
    workers = {one["pid"]: one for one in running.workers("ready")}
    if victim in workers and read_group().taken_bytes and workers[victim]["reason"] is None:
        visitor.request("/keep?mib=50")
        time.sleep(0.5)
    return False
