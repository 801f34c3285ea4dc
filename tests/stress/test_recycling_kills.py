"""kill -9 of everything but the supervisor, under load: only what ran in the killed one is lost.

It is counted exactly. Of each process that is killed is known which connections nobody else had at
that moment; a request may fail on one of these, once, and on no other connection.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
from bench.recycle.load import Load, send

from memguard_native.errors import SupervisorError

from ..integration.recycling.supervised import is_alive, service
from . import recycling_drivers as drivers

pytestmark = pytest.mark.stress

APP = "tests.stress.recycling_application:app"
CLIENTS = 8


def started(directory, **arguments):
    options = {"workers": 2, "log_level": "warning", "start": "zygote", **arguments}
    return service(directory, app=APP, path=drivers.ROOT, **options)


# --- at random ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "kills"),
    [
        ("uvloop", 20),
        pytest.param("uvloop", 100, marks=pytest.mark.slow),
        pytest.param("asyncio", 100, marks=pytest.mark.slow),
    ],
)
def test_only_requests_in_a_killed_process_fail(tmp_path, loop, kills):
    # A start-up that can be seen, and killed.
    environment = {"APP_START_SECONDS": "0.05"}
    with started(tmp_path, loop=loop, environment=environment) as running:
        killed, results = _under_load(running, Killer(running, random.Random(kills)), kills)
        assert len(killed) == kills
        asked_to_die = [kill.ports for kill in killed if kill.ports]
        assert len(asked_to_die) > kills / 4, "the kills hit nobody"
        failures = [failed for result in results for failed in result.failures]
        assert failures, "no kill hit a request"
        for failed in failures:
            _account_for(failed, killed)
        running.until(lambda: drivers.is_settled(running, workers=2))
        last = asyncio.run(send(Load(port=running.port, clients=CLIENTS, requests=500)))
        assert last.failed == 0
        # It may have brought a worker to its limit of requests.
        running.until(lambda: drivers.is_settled(running, workers=2))
        descriptors = {one["pid"]: drivers.descriptors_of(one["pid"]) for one in running.workers()}
        assert max(descriptors.values()) < 100, descriptors
        assert running.end() == 0
    assert drivers.processes_of(tmp_path) == set()


def _under_load(running, killer, kills):
    results = []
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(killer.run, kills)
        killing.add_done_callback(lambda _: done.set())
        while not done.is_set():
            load = Load(
                port=running.port,
                clients=CLIENTS,
                requests=500,
                new_connections=0.1,
                think=0.003,
                path="/?seconds=0.01",
            )
            results.append(asyncio.run(send(load)))
        return killing.result(), results


def _account_for(failed, killed):
    """Take its connection from a process that was killed before: it had one request at most."""
    for kill in killed:
        if kill.at <= failed.at and failed.port in kill.ports:
            kill.ports.remove(failed.port)
            return
    raise AssertionError(f"{failed} was in no process that was killed")


class Killer:
    """Kills workers that serve, drain and start up, and zygotes, each at a random moment."""

    # How many of ten.
    VICTIMS = ("serving",) * 4 + ("draining",) * 3 + ("zygote",) * 2 + ("starting",)

    def __init__(self, running, draw):
        self._running = running
        self._draw = draw

    def run(self, kills):
        killed = []
        victims = []
        while len(killed) < kills:
            victims = victims or self._draw.sample(self.VICTIMS, len(self.VICTIMS))
            time.sleep(self._draw.uniform(0.0, 0.05))
            kill = getattr(self, f"_kill_{victims[-1]}")()
            if kill is not None:  # else it was too late for this one
                victims.pop()
                killed.append(kill)
        return killed

    def _kill_serving(self):
        target = self._draw.choice(self._all_ready())
        kill = drivers.kill_exactly(self._running, target["pid"])
        self._running.until(lambda: not is_alive(target["pid"]))
        # Replaced in peace, it does not count as one that goes on crashing and has to wait.
        self._recycle(target["number"])
        return kill

    def _kill_draining(self):
        target = self._draw.choice(self._all_ready())
        self._ask(target["number"])
        pid = self._pid_in(target["generation"], "draining")
        return pid and drivers.kill_exactly(self._running, pid)

    def _kill_starting(self):
        ready = self._all_ready()
        target = self._draw.choice(ready)
        self._ask(target["number"])
        newest = max(one["generation"] for one in ready)
        pid = self._running.until(
            lambda: [
                one["pid"]
                for one in self._running.workers("warming")
                if one["generation"] > newest and one["pid"]
            ]
        )[0]
        kill = drivers.kill_exactly(self._running, pid)
        self._until_gone(target["generation"])
        return kill

    def _kill_zygote(self):
        zygote = drivers.zygote_of(self._running)
        return zygote and drivers.kill_exactly(self._running, zygote)

    def _recycle(self, number):
        (target,) = [one for one in self._all_ready() if one["number"] == number]
        self._ask(number)
        self._until_gone(target["generation"])

    def _ask(self, number):
        with suppress(SupervisorError):
            self._running.recycle(number)

    def _pid_in(self, generation, state):
        """Its process number once it is in this state; None: it is gone already."""
        while True:
            found = [one for one in self._running.workers() if one["generation"] == generation]
            if not found:
                return None
            if found[0]["state"] == state:
                return found[0]["pid"]

    def _until_gone(self, generation):
        self._running.until(
            lambda: all(one["generation"] != generation for one in self._running.workers())
        )

    def _all_ready(self):
        def ready():
            found = self._running.workers("ready")
            return found if len(found) == 2 == len(self._running.workers()) else None

        return self._running.until(ready)


# --- in the middle of a handover ------------------------------------------------------------------


@contextmanager
def started_with_clients(directory, **arguments):
    """A service, and `clients(count)`: so many more kept connections."""
    with started(directory, **arguments) as running, ExitStack() as stack:
        yield (
            running,
            lambda count: [
                stack.enter_context(closing(drivers.Client(running.port))) for _ in range(count)
            ],
        )


def by_worker(clients):
    """{process: the clients that it answers}"""
    found = {}
    for client in clients:
        found.setdefault(client.ask(), []).append(client)
    return found


def test_what_an_adopter_had_not_taken_over_goes_to_another(tmp_path):
    """The adopter is stopped, so that descriptors lie in its channel, and then killed."""
    with started_with_clients(tmp_path) as (running, clients):
        settled = drivers.descriptors_of(running.process.pid)
        kept = by_worker(clients(60))
        (first, own), (second, _) = sorted(kept.items(), key=lambda one: -len(one[1]))
        assert drivers.stop(second)
        number = next(one["number"] for one in running.workers() if one["pid"] == first)
        running.recycle(number)
        running.until(running.recycles)
        sent = drivers.ports_held_by(running.process.pid, running.port)
        ports = {client.port for client in own}
        assert sent, "nothing lies with the stopped worker"
        assert sent <= ports
        os.kill(second, signal.SIGKILL)
        answered = {client.ask() for client in own}
        assert not answered & {first, second}
        running.until(lambda: drivers.is_settled(running, workers=2))
        running.until(lambda: drivers.descriptors_of(running.process.pid) == settled)


def test_an_adopter_that_dies_with_a_connection_before_it_is_its_own_loses_nothing(tmp_path):
    with started_with_clients(tmp_path, environment={"APP_FAULTS": str(tmp_path)}) as (
        running,
        clients,
    ):
        kept = by_worker(clients(40))
        first, own = max(kept.items(), key=lambda one: len(one[1]))
        alive = _recycle_with_fault(running, tmp_path / "adopter-received", first)
        assert {client.ask() for client in own} <= alive
        running.until(lambda: drivers.is_settled(running, workers=2))


def test_an_adopter_that_dies_just_after_loses_what_was_its_own_and_nothing_else(tmp_path):
    with started_with_clients(tmp_path, environment={"APP_FAULTS": str(tmp_path)}) as (
        running,
        clients,
    ):
        kept = by_worker(clients(40))
        first, own = max(kept.items(), key=lambda one: len(one[1]))
        alive = _recycle_with_fault(running, tmp_path / "adopter-accepted", first)
        lost = 0
        for client in own:
            try:
                assert client.ask() in alive
            except ConnectionError:
                lost += 1
        assert lost == 1
        running.until(lambda: drivers.is_settled(running, workers=2))


def _recycle_with_fault(running, fault, pid):
    """Replace the worker `pid`, and have an adopter die; who serves after that."""
    number = next(one["number"] for one in running.workers() if one["pid"] == pid)
    fault.touch()
    running.recycle(number)
    running.until(lambda: "killed by signal 9" in running.told())
    assert not fault.exists()

    def settled():
        return drivers.is_settled(running, workers=2) and {
            one["pid"] for one in running.workers("ready")
        } - {pid}

    return running.until(settled)


def test_an_old_worker_killed_in_mid_drain_loses_only_its_requests(tmp_path):
    with started_with_clients(tmp_path, workers=1) as (running, clients):
        (old,) = [one["pid"] for one in running.workers()]
        idle, busy = clients(30), clients(3)
        for client in idle + busy:
            assert client.ask() == old
        for client in busy:
            client.send("/?seconds=60")
        running.until(lambda: sum(one["in_flight"] for one in running.workers()) == len(busy))
        running.recycle(0)
        running.until(lambda: running.workers("draining"))
        running.until(lambda: len(drivers.ports_held_by(old, running.port)) == len(busy))
        kill = drivers.kill_exactly(running, old)
        assert kill.ports == {client.port for client in busy}
        for client in busy:
            with pytest.raises(ConnectionError):
                client.answer()
        (new,) = [one["pid"] for one in running.workers("ready")]
        assert {client.ask() for client in idle} == {new}
        running.until(lambda: drivers.is_settled(running, workers=1))


def test_an_old_worker_killed_while_it_hands_over_loses_only_what_it_still_has(tmp_path):
    """The supervisor is stopped meanwhile, so that the old worker cannot give all of them away."""
    with started_with_clients(tmp_path, workers=1) as (running, clients):
        (old,) = [one["pid"] for one in running.workers()]
        idle = clients(600)
        for client in idle:
            assert client.ask() == old
        assert drivers.stop(old)
        running.recycle(0)
        running.until(lambda: running.workers("draining"))
        assert drivers.stop(running.process.pid)
        os.kill(old, signal.SIGCONT)
        held = _held_in_the_end(old, running.port)
        os.kill(old, signal.SIGKILL)
        running.signal(signal.SIGCONT)
        assert 0 < len(held) < len(idle)
        (new,) = [one["pid"] for one in running.workers("ready")]
        lost = set()
        for client in idle:
            try:
                assert client.ask() == new
            except ConnectionError:
                lost.add(client.port)
        assert lost == held
        running.until(lambda: drivers.is_settled(running, workers=1))


def _held_in_the_end(pid, port):
    """Once it gives away no more."""
    before, held = None, drivers.ports_held_by(pid, port)
    while before != held:
        time.sleep(0.1)
        before, held = held, drivers.ports_held_by(pid, port)
    return held
