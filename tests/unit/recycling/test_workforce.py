"""Workers as the supervisor has them, with processes that the test plays: each is a `sleep`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess

import pytest

from memguard_native.recycling.messages import Channel, Kind
from memguard_native.recycling.planner import Start, WorkerState
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.recycles import Recycles
from memguard_native.recycling.relay import Relay
from memguard_native.recycling.selection import Selection
from memguard_native.recycling.settings import ServiceSettings
from memguard_native.recycling.workforce import Workforce

READY_TIMEOUT, HANG_TIMEOUT = 20.0, 5.0


class Starter:
    """Starts processes that do nothing; `ends`: the workers' sides of their channels."""

    def __init__(self):
        self.refusal = None
        self.processes = []
        self.ends = []

    def spawn_worker(self, place, end):
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(subprocess.Popen(["sleep", "600"]))
        self.ends.append(Channel(end.dup()))
        pid = self.processes[-1].pid
        return pid, os.pidfd_open(pid)


class Surroundings:
    """A workforce whose time moves by hand."""

    def __init__(self):
        self.now = 100.0
        self.ended = []
        self.starter = Starter()
        self.selection = Selection()
        self.recycles = Recycles()
        policy = RecyclePolicy().resolved(workers=2, limit_bytes=None, cgroup_limit_bytes=None)
        self.workforce = Workforce(
            ServiceSettings(app="shop.web:app", policy=policy, namespace="test"),
            self.starter,
            self.selection,
            Relay(capacity=16),
            self.recycles,
            ready_timeout=READY_TIMEOUT,
            hang_timeout=HANG_TIMEOUT,
            on_ended=lambda worker, why: self.ended.append((worker.number, why)),
            clock=lambda: self.now,
        )

    def start(self, number=0, *, ready=True):
        self.workforce.start(Start(number, None, None), None, self.now)
        if ready:
            payload = {"own_bytes": 0, "tier": "handover"}
            self.starter.ends[-1].send(Kind.ready, payload=payload)
            self.selection.wait(10.0)
        return list(self.workforce.workers.values())[-1]

    def look(self, *, after=0.0):
        self.now += after
        self.workforce.look(self.now)

    def is_running(self, worker):
        """Whether nothing has killed it."""
        (process,) = [one for one in self.starter.processes if one.pid == worker.pid]
        return process.poll() is None

    def killed_by(self, worker):
        (process,) = [one for one in self.starter.processes if one.pid == worker.pid]
        return signal.Signals(-process.wait(10))


@pytest.fixture
def surroundings():
    surroundings = Surroundings()
    yield surroundings
    surroundings.workforce.close()
    surroundings.selection.close()
    for end in surroundings.starter.ends:
        end.close()
    for process in surroundings.starter.processes:
        process.kill()
        process.wait()


def test_a_start_that_the_system_refuses_leaves_nothing_behind(surroundings):
    descriptors = os.listdir("/proc/self/fd")
    surroundings.starter.refusal = OSError(errno.EAGAIN, "no process")
    with pytest.raises(OSError, match="no process"):
        surroundings.start(ready=False)
    assert surroundings.workforce.workers == {}
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_worker_that_is_not_ready_in_time_is_aborted(surroundings):
    worker = surroundings.start(ready=False)
    surroundings.look(after=READY_TIMEOUT)
    assert worker.failure is None
    surroundings.look(after=0.1)
    assert worker.failure == "it was not ready within 20 s"
    assert surroundings.killed_by(worker) is signal.SIGABRT


def test_who_lives_on_after_its_abort_is_killed(surroundings):
    worker = surroundings.start(ready=False)
    surroundings.look(after=READY_TIMEOUT + 0.1)
    assert worker.kill_at == surroundings.now + 2.0


def test_a_standstill_of_the_supervisor_takes_no_time_from_anybody(surroundings):
    starting = surroundings.start(0, ready=False)
    draining = surroundings.start(1)
    surroundings.workforce.drain(draining, None, surroundings.now)
    kill_at = draining.kill_at
    surroundings.now += 1000.0
    surroundings.workforce.was_late(surroundings.now, 1000.0)
    surroundings.look()
    assert starting.failure is None
    assert draining.kill_at == kill_at + 1000.0
    assert surroundings.is_running(starting)
    assert surroundings.is_running(draining)


def test_after_a_standstill_an_old_heartbeat_is_no_hang(surroundings):
    worker = surroundings.start()
    worker.page = {"loop_heartbeat_age": HANG_TIMEOUT + 1}
    surroundings.workforce.was_late(surroundings.now, 10.0)
    surroundings.look(after=HANG_TIMEOUT - 0.1)
    assert worker.failure is None
    surroundings.look(after=0.1)
    assert worker.failure == "its event loop hung"
    assert surroundings.killed_by(worker) is signal.SIGABRT


def test_a_heart_beats_where_somebody_serves_or_starts(surroundings):
    workforce = surroundings.workforce
    assert not workforce.is_alive
    worker = surroundings.start(ready=False)
    assert workforce.is_alive
    surroundings.starter.ends[0].send(Kind.ready, payload={"own_bytes": 0, "tier": "handover"})
    surroundings.selection.wait(10.0)
    worker.page = {"loop_heartbeat_age": 0.1}
    assert workforce.is_alive
    worker.page = {"loop_heartbeat_age": 11.0}
    assert not workforce.is_alive


def test_a_worker_that_is_gone_serves_no_more_and_is_buried_with_its_status(surroundings):
    worker = surroundings.start()
    surroundings.starter.processes[0].kill()
    surroundings.selection.wait(10.0)
    assert surroundings.workforce.serving == []
    surroundings.workforce.ended(worker, signal.SIGKILL)
    assert surroundings.ended == [(0, "killed by signal 9 (Killed)")]


def test_a_worker_that_drained_ended_as_it_was_told(surroundings):
    worker = surroundings.start()
    surroundings.workforce.drain(worker, None, surroundings.now)
    assert worker.state is WorkerState.draining
    assert surroundings.starter.ends[0].receive().kind is Kind.drain
    surroundings.workforce.ended(worker, 0)
    assert surroundings.ended == [(0, None)]


def test_the_lock_of_somebody_who_does_not_move_is_not_waited_for_each_second(
    surroundings, monkeypatch
):
    from memguard_native import segment
    from memguard_native.errors import SegmentError

    tries = []

    def refuse(_segment):
        tries.append(surroundings.now)
        raise SegmentError("/segment", "another process holds its lock", "end it")

    monkeypatch.setattr(segment, "attach_again", refuse)
    for path in segment.directory().iterdir():
        path.unlink()
    for _ in range(61):
        surroundings.workforce.look_at_segment()
        surroundings.now += 1.0
    assert tries == [100.0, 130.0, 160.0]
