"""Processes that a worker has started: real ones, in a group of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from memguard_native.recycling.children import os_threads, other_members, signal_group

# Starts one more process, says its number, and waits until it is killed.
LEADER = (
    "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); "
    "print(child.pid, flush=True); child.wait()"
)


class Family:
    """A leader of a group and the process that it has started."""

    def __init__(self) -> None:
        self.leader = subprocess.Popen(
            [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, process_group=0
        )
        assert self.leader.stdout is not None
        self.child = int(self.leader.stdout.readline())
        # It was executed, but has its name only an instant later.
        until = time.monotonic() + 30
        while Path(f"/proc/{self.child}/comm").read_text() != "sleep\n":
            assert time.monotonic() < until
            time.sleep(0.001)
        self.group = self.leader.pid

    def end(self) -> None:
        """As `LEADER` waits for its child, it ends with it."""
        if self.leader.poll() is None:
            os.kill(self.child, signal.SIGKILL)
        self.leader.wait(timeout=30)
        assert self.leader.stdout is not None
        self.leader.stdout.close()


@pytest.fixture
def family():
    family = Family()
    yield family
    family.end()


def test_the_members_of_a_group_are_found_without_its_leader(family):
    assert other_members(family.group) == [family.child]


def test_a_group_without_members_has_none(family):
    family.end()
    assert other_members(family.group) == []


def test_what_is_in_another_group_is_no_member(family):
    assert os.getpid() not in other_members(family.group)


def test_a_signal_reaches_all_of_a_group(family):
    assert signal_group(family.group, signal.SIGKILL)
    assert family.leader.wait(timeout=30) == -signal.SIGKILL


def test_a_group_that_is_gone_is_told(family):
    family.end()
    assert not signal_group(family.group, signal.SIGTERM)


def test_a_group_of_another_user_is_there(monkeypatch):
    def denied(_group: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", denied)
    assert signal_group(12345, signal.SIGTERM)


def test_the_threads_of_a_process_are_told_by_name(family):
    assert os_threads(family.child) == ["sleep"]


def test_without_a_number_the_threads_are_those_of_this_process():
    before = len(os_threads())
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert len(os_threads()) == before + 1
    finally:
        release.set()
        thread.join()


def test_a_thread_that_ends_meanwhile_is_left_out(family, monkeypatch):
    found = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*found(path), "999999999"])
    assert os_threads(family.child) == ["sleep"]
