"""What dead workers leave behind: real processes, children of this one; time moves by hand."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from memguard_native import _core
from memguard_native.recycling import orphans as module
from memguard_native.recycling.children import children_of
from memguard_native.recycling.orphans import Orphans

SIGTERM, SIGKILL = signal.SIGTERM, signal.SIGKILL
PR_SET_CHILD_SUBREAPER = 36
# Lives on when it is told to end; should nobody kill it, it does not outlive the test for long.
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
signal.alarm(60)
if sys.argv[1:]:
    subprocess.Popen(sys.argv[1:], start_new_session=True)
print("ready", flush=True)
while True:
    signal.pause()
"""


class Processes:
    """Starts processes, each in a session of its own if it is not told otherwise, and ends those
    that are left."""

    def __init__(self):
        self._started = []

    def obedient(self, **more):
        more = more or {"start_new_session": True}
        self._started.append(subprocess.Popen(["sleep", "60"], **more))
        return self._started[-1]

    def stubborn(self, *starts, **more):
        """`starts`: the command that it has started itself by the time that this returns."""
        more = more or {"start_new_session": True}
        command = [sys.executable, "-c", STUBBORN, *starts]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
        self._started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    def end(self):
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def processes():
    processes = Processes()
    yield processes
    processes.end()


@pytest.fixture
def signals(monkeypatch):
    """Who was signalled by number, in order; the signals are sent as well."""
    sent = []
    kill = os.kill

    def recorded(pid, number):
        sent.append((pid, number))
        kill(pid, number)

    monkeypatch.setattr(os, "kill", recorded)
    return sent


def ended_by(process):
    return -process.wait(timeout=30)


def is_told(process):
    return process.stdout.readline() == "told\n"


# --- groups ---------------------------------------------------------------------------------------


def test_a_group_is_told_at_once_and_killed_after_its_patience(processes):
    leader = processes.obedient(process_group=0)
    member = processes.stubborn(process_group=leader.pid)
    orphans = Orphans(set)
    orphans.end_group(leader.pid, now=10.0)
    assert ended_by(leader) == SIGTERM
    assert is_told(member)
    orphans.look(11.9)
    assert member.poll() is None
    assert not orphans.is_gone
    orphans.look(12.0)
    assert ended_by(member) == SIGKILL
    orphans.look(12.1)
    assert not orphans.is_gone  # what it has started itself may have come
    orphans.look(12.2)
    assert orphans.is_gone


@pytest.mark.usefixtures("adopting")
def test_what_one_of_a_group_has_started_in_a_session_ends_once_that_one_was_killed(processes):
    leader = processes.obedient(process_group=0)
    member = processes.stubborn("sleep", "60", process_group=leader.pid)
    (child,) = children_of(member.pid)
    orphans = Orphans(set)
    orphans.end_group(leader.pid, now=10.0)
    leader.wait()
    orphans.look(12.0)
    assert ended_by(member) == SIGKILL
    orphans.look(12.1)
    assert not orphans.is_gone
    orphans.look(12.2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -SIGTERM
    orphans.look(12.3)
    assert orphans.is_gone


def test_a_group_that_no_signal_ends_does_not_hold_the_end_for_long(processes, monkeypatch):
    leader = processes.obedient(process_group=0)
    processes.obedient(process_group=leader.pid)
    orphans = Orphans(set)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda _group, _number: None)
        orphans.end_group(leader.pid, now=10.0)
        orphans.look(13.9)
        assert not orphans.is_gone
        orphans.look(14.0)
        orphans.look(14.1)
        assert orphans.is_gone


def test_a_group_that_ends_when_it_is_told_is_waited_for_no_longer(processes):
    leader = processes.obedient(process_group=0)
    member = processes.obedient(process_group=leader.pid)
    orphans = Orphans(set)
    orphans.end_group(leader.pid, now=10.0)
    assert ended_by(member) == SIGTERM
    orphans.look(10.1)
    orphans.look(10.2)
    assert orphans.is_gone


def test_a_group_that_is_gone_holds_nothing_up(processes):
    leader = processes.obedient(process_group=0)
    leader.kill()
    leader.wait()
    orphans = Orphans(set)
    orphans.end_group(leader.pid, now=10.0)
    assert orphans.is_gone


# --- those that have left their group -------------------------------------------------------------


def test_what_comes_after_a_worker_ended_is_told_and_killed_two_seconds_later(processes, signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.stubborn()
    orphans.look(10.1)
    assert is_told(stray)
    orphans.look(12.0)
    assert signals == [(stray.pid, SIGTERM)]
    assert not orphans.is_gone
    orphans.look(12.2)
    assert ended_by(stray) == SIGKILL
    orphans.look(12.3)
    assert orphans.is_gone


def test_what_ends_when_it_is_told_is_not_killed(processes, signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.obedient()
    orphans.look(10.1)
    assert ended_by(stray) == SIGTERM
    orphans.look(12.2)
    assert signals == [(stray.pid, SIGTERM)]
    assert orphans.is_gone


def test_what_was_there_before_any_worker_is_left_alone(processes, signals):
    processes.obedient()
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    orphans.look(10.1)
    orphans.look(12.2)
    assert signals == []
    assert orphans.is_gone


def test_what_came_before_a_worker_ended_is_left_alone(processes, signals):
    orphans = Orphans(set)
    processes.obedient()
    orphans.look(9.9)
    orphans.worker_ended(now=10.0)
    orphans.look(10.1)
    orphans.look(12.2)
    assert signals == []
    assert orphans.is_gone


def test_what_comes_long_after_a_worker_ended_is_left_alone(processes, signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    orphans.look(10.1)
    processes.obedient()
    orphans.look(14.1)
    orphans.worker_ended(now=14.2)
    orphans.look(14.3)
    assert signals == []


def test_the_supervisors_own_children_are_left_alone(processes, signals):
    own = set()
    orphans = Orphans(lambda: own)
    orphans.worker_ended(now=10.0)
    own.add(processes.obedient().pid)
    orphans.look(10.1)
    assert signals == []


def test_what_is_in_the_group_of_a_living_worker_is_left_alone(processes, signals):
    worker = processes.obedient(process_group=0)
    orphans = Orphans(lambda: {worker.pid})
    orphans.worker_ended(now=10.0)
    processes.obedient(process_group=worker.pid)
    orphans.look(10.1)
    assert signals == []


def test_what_has_a_group_of_its_own_in_our_session_is_told(processes, signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.obedient(process_group=0)
    orphans.look(10.1)
    assert signals == [(stray.pid, SIGTERM)]


def test_what_ends_with_its_group_is_not_told_twice(processes, signals):
    orphans = Orphans(set)
    leader = processes.obedient(process_group=0)
    processes.stubborn(process_group=leader.pid)
    orphans.end_group(leader.pid, now=10.0)
    orphans.worker_ended(now=10.0)
    orphans.look(10.1)
    assert signals == []


def test_what_ends_while_it_is_looked_at_is_no_failure(monkeypatch):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    monkeypatch.setattr(module, "children_of", lambda _pid: [999_999_999])
    orphans.look(10.1)
    monkeypatch.setattr(module, "children_of", lambda _pid: [])
    orphans.look(10.2)
    assert orphans.is_gone


def test_what_comes_within_seconds_of_a_strays_end_ends_too(processes):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.stubborn()
    orphans.look(10.1)
    orphans.look(13.9)
    assert ended_by(stray) == SIGKILL
    orphans.look(14.0)
    assert orphans.is_gone
    late = processes.obedient()
    orphans.look(17.8)
    assert ended_by(late) == SIGTERM


@pytest.fixture
def adopting():
    """Orphans come to this process, as they do to the supervisor."""
    before = set(children_of(os.getpid()))
    _core.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for pid in set(children_of(os.getpid())) - before:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)


def orphan_of_a_leader(before_it_is_reaped=lambda _pid: None):
    """A child of this process, of a session whose leader has ended."""
    before = set(children_of(os.getpid()))
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & exit 0"], start_new_session=True)
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    before_it_is_reaped(leader.pid)
    leader.wait()
    (orphan,) = set(children_of(os.getpid())) - before
    return orphan


@pytest.mark.usefixtures("adopting")
def test_what_is_of_a_session_that_no_orphan_led_is_left_alone(signals):
    """As what `docker exec` has left, where the supervisor is the container's first process."""
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    orphan_of_a_leader()
    orphans.look(10.1)
    assert signals == []


@pytest.mark.usefixtures("adopting")
def test_what_is_of_a_session_that_an_orphan_led_ends_although_that_one_is_gone(signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    orphan = orphan_of_a_leader(orphans.child_ended)
    orphans.look(10.1)
    assert signals == [(orphan, SIGTERM)]


def test_what_the_owner_has_started_meanwhile_is_left_alone(processes, signals):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    processes.obedient()
    orphans.spare_children()
    orphans.look(10.1)
    assert signals == []


def missing(path):
    raise FileNotFoundError(path)


@pytest.mark.parametrize("readlink", [lambda _path: "1", missing])
def test_without_a_proc_of_its_own_nobody_is_taken_for_a_stray(monkeypatch, signals, readlink):
    monkeypatch.setattr(os, "readlink", readlink)
    orphans = Orphans(set)
    monkeypatch.setattr(module, "children_of", lambda _pid: [os.getppid()])
    orphans.worker_ended(now=10.0)
    orphans.look(10.1)
    assert signals == []
    assert orphans.is_gone


@pytest.mark.usefixtures("adopting")
def test_what_a_stray_has_started_itself_ends_too_however_late_it_comes(processes):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.stubborn("sleep", "60")
    (child,) = children_of(stray.pid)
    orphans.look(10.1)
    assert is_told(stray)
    orphans.look(13.9)
    assert ended_by(stray) == SIGKILL
    orphans.look(17.8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -SIGTERM
    orphans.look(17.9)
    assert orphans.is_gone


# --- the end --------------------------------------------------------------------------------------


def test_nothing_is_left_only_once_it_was_looked_for_since_the_last_worker_ended():
    orphans = Orphans(set)
    assert orphans.is_gone
    orphans.worker_ended(now=10.0)
    assert not orphans.is_gone
    orphans.look(10.1)
    assert orphans.is_gone
    orphans.worker_ended(now=10.2)
    assert not orphans.is_gone


def test_what_has_become_another_users_does_not_hold_the_end(processes, monkeypatch):
    def denied(_pid, _number):
        raise PermissionError

    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    processes.obedient()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", denied)
        orphans.look(10.1)
    assert orphans.is_gone


def test_what_no_signal_ends_does_not_hold_the_end_for_long(processes, monkeypatch):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.obedient()
    signals = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *signal: signals.append(signal))
        orphans.look(10.1)
        orphans.look(12.1)
        orphans.look(14.0)
        assert not orphans.is_gone
        orphans.look(14.1)
        assert orphans.is_gone
        orphans.look(14.2)
        assert orphans.is_gone
    assert set(signals) == {(stray.pid, SIGTERM), (stray.pid, SIGKILL)}


# --- a supervisor that was stopped for a while ----------------------------------------------------


def test_a_first_look_that_comes_late_finds_what_a_worker_has_left(processes):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.obedient()
    orphans.look(70.0)
    assert ended_by(stray) == SIGTERM
    orphans.look(70.1)
    assert orphans.is_gone


def test_what_was_told_is_killed_even_if_the_next_look_comes_late(processes):
    orphans = Orphans(set)
    orphans.worker_ended(now=10.0)
    stray = processes.stubborn()
    orphans.look(10.1)
    assert is_told(stray)
    orphans.look(70.0)
    assert ended_by(stray) == SIGKILL
