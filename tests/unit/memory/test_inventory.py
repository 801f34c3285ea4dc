from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from memguard_native.memory.inventory import (
    Inventory,
    compare_inventories,
    kind_of,
    take_inventory,
)

on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "fd").mkdir()
    (tmp_path / "task").mkdir()
    for number, target in enumerate(["/var/log/x", "socket:[1]", "socket:[2]"]):
        (tmp_path / "fd" / str(number)).symlink_to(target)
    for task in (100, 101):
        (tmp_path / "task" / str(task)).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("socket:[123]", "socket"),
        ("pipe:[9]", "pipe"),
        ("anon_inode:[eventpoll]", "eventpoll"),
        ("anon_inode:inotify", "inotify"),
        ("/memfd:name (deleted)", "memfd"),
        ("/dev/shm/psm_1", "shared memory"),
        ("/dev/null", "device"),
        ("/home/someone/report.pdf (deleted)", "file"),
    ],
)
def test_the_link_tells_the_kind_of_a_descriptor_and_nothing_else(target, kind):
    assert kind_of(target) == kind


def test_threads_and_descriptors_are_counted(proc):
    found = take_inventory(proc)
    assert (found.threads, found.descriptors) == (2, 3)
    assert found.kinds == {"file": 1, "socket": 2}


def test_threads_of_one_pool_are_one_row():
    names = ["MainThread", "ThreadPoolExecutor-0_1", "ThreadPoolExecutor-0_2"]
    found = take_inventory(thread_names=lambda: names)
    assert found.python_threads == {"MainThread": 1, "ThreadPoolExecutor-#_#": 2}


def test_without_proc_the_threads_of_python_are_what_is_known(tmp_path):
    found = take_inventory(tmp_path / "absent")
    assert (found.threads, found.descriptors, found.kinds) == (None, None, None)
    assert sum(found.python_threads.values()) == threading.active_count()


def test_of_very_many_descriptors_only_the_number_is_told(proc):
    for number in range(3, 4100):
        (proc / "fd" / str(number)).symlink_to("socket:[9]")
    found = take_inventory(proc)
    assert (found.descriptors, found.kinds) == (4100, None)
    assert compare_inventories(found, found)["file_descriptors"]["kinds"] is None


@on_linux
def test_a_socket_of_this_process_is_found():
    before = take_inventory()
    with socket.socket():
        after = take_inventory()
    assert after.kinds is not None
    assert after.kinds["socket"] == before.kinds.get("socket", 0) + 1
    assert after.threads == len(os.listdir("/proc/self/task"))


def test_what_grew_most_comes_first():
    before = Inventory(descriptors=3, kinds={"file": 2, "pipe": 5, "socket": 1})
    after = Inventory(descriptors=9, kinds={"file": 3, "pipe": 1, "socket": 9})
    rows = compare_inventories(before, after)["file_descriptors"]["kinds"]
    assert rows[0] == {"name": "socket", "before": 1, "after": 9}
    assert [row["name"] for row in rows] == ["socket", "file", "pipe"]
