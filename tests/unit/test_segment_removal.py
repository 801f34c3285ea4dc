"""What is removed of the files that processes share, and what never is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from memguard_native import SegmentError, SegmentUnavailableError
from memguard_native import segment as segments
from memguard_native.segment import attach, left_overs, path_of, remove_if_unused, remove_left_over

WORKER = """
import os, sys, time
from memguard_native.segment import attach
print("attaching", flush=True)
segment = attach("given")
print(segment.has_its_name(), segment.core.slot is not None, flush=True)
time.sleep(60)
"""


def start_worker():
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "attaching\n"
    return worker, worker.stdout


@pytest.fixture
def path():
    """A segment whose only owner was killed."""
    worker, told = start_worker()
    with worker:
        assert told.readline() == "True True\n"
        worker.send_signal(signal.SIGKILL)
    return path_of("given")


def test_a_segment_is_removed_with_all_that_lies_beside_it(path):
    path.with_name(path.name + ".damaged").touch()
    assert remove_if_unused(path)
    assert list(path.parent.iterdir()) == []


def test_a_segment_with_a_living_owner_stays(path):
    attach("given")
    assert not remove_if_unused(path)
    assert path.exists()


def test_one_that_is_gone_leaves_no_lock_behind(path):
    path.unlink()
    assert remove_if_unused(path)
    assert list(path.parent.iterdir()) == []


def test_a_worker_that_starts_meanwhile_gets_a_file_that_stays(path, monkeypatch):
    started = []
    real = segments._is_unused

    def is_unused(of):
        started.append(start_worker())
        return real(of)

    monkeypatch.setattr(segments, "_is_unused", is_unused)
    assert remove_if_unused(path)
    ((worker, told),) = started
    with worker:
        assert told.readline() == "True True\n"
        monkeypatch.setattr(segments, "_is_unused", real)
        assert not remove_if_unused(path)
        worker.kill()


def test_a_lock_that_is_removed_while_it_is_opened_is_opened_again(path, monkeypatch):
    opened = []
    real_open = os.open

    def removed_meanwhile(file, *more):
        descriptor = real_open(file, *more)
        if str(file).endswith(".lock"):
            opened.append(file)
            if len(opened) == 1:
                os.unlink(file)
        return descriptor

    monkeypatch.setattr(os, "open", removed_meanwhile)
    assert attach("given").has_its_name()
    assert len(opened) == 2


def test_a_process_that_has_found_a_segment_takes_its_slot_before_anybody_removes_it(
    path, monkeypatch
):
    monkeypatch.setattr(segments, "_LOCK_TIMEOUT", 0.05)
    refusals = []
    real = segments._namespace_id

    def namespace_id(kind):  # asked for last to claim the slot
        with monkeypatch.context() as patch:
            patch.setattr(segments, "_namespace_id", real)
            with pytest.raises(SegmentUnavailableError, match="holds its lock") as refused:
                remove_if_unused(path)
        refusals.append(refused)
        return real(kind)

    monkeypatch.setattr(segments, "_namespace_id", namespace_id)
    attach("given")
    monkeypatch.setattr(segments, "_namespace_id", real)
    assert len(refusals) == 3
    assert attach("given").has_its_name()
    assert not remove_if_unused(path)


@pytest.mark.parametrize("kind", ["time", "pid"])
def test_one_whose_owners_cannot_be_told_to_be_dead_stays(path, monkeypatch, kind):
    real = segments._namespace_id
    monkeypatch.setattr(segments, "_namespace_id", lambda of: 77 if of == kind else real(of))
    assert not remove_if_unused(path)
    assert path.exists()


def test_one_of_another_boot_is_removed(path, monkeypatch):
    attach("given")
    monkeypatch.setattr(segments, "_boot_id", lambda: b"another boot, 16")
    assert remove_if_unused(path)


def test_what_is_not_ours_stays(path):
    path.chmod(0o644)
    with pytest.raises(SegmentError, match="others may use it"):
        remove_if_unused(path)
    path.chmod(0o600)
    path.parent.chmod(0o777)
    with pytest.raises(SegmentError, match="others may write to the directory"):
        remove_if_unused(path)
    lock = path.with_name("gone-v1.seg.lock")
    lock.touch()
    with pytest.raises(SegmentError, match="others may write to the directory"):
        remove_left_over(lock)
    assert path.exists()
    assert lock.exists()


# --- left over ------------------------------------------------------------------------------------


def test_half_made_files_are_left_over_when_they_are_old(path):
    made = path.with_name(f"{path.name}.{16 * 'a'}.new")
    made.touch()
    assert left_overs() == []
    os.utime(made, (0, 0))
    assert left_overs() == [made]
    assert remove_left_over(made)
    assert left_overs() == []
    assert path.exists()


def test_locks_and_damaged_files_are_left_over_when_their_segment_is_gone(path):
    damaged, lock = (path.with_name(path.name + end) for end in (".damaged", ".lock"))
    damaged.touch()
    assert left_overs() == []
    path.unlink()
    assert left_overs() == [damaged, lock]
    assert remove_left_over(damaged)
    assert remove_left_over(lock)
    assert list(path.parent.iterdir()) == []


def test_a_lock_that_has_come_into_use_stays(path):
    lock = path.with_name(path.name + ".lock")
    assert not remove_left_over(lock)
    assert lock.exists()


@pytest.mark.parametrize("name", ["config.yaml.new", "a-v1.seg.1.new", "x.lock", "x.damaged"])
def test_other_files_in_the_directory_are_none_of_ours(path, name):
    other = path.with_name(name)
    other.touch()
    os.utime(other, (0, 0))
    assert left_overs() == []
    assert not remove_left_over(other)
    assert other.exists()


# --- of another namespace of process numbers ------------------------------------------------------


@pytest.fixture
def foreign(monkeypatch):
    """A segment that counts the process numbers of another container, where one lives."""
    namespace_id = segments._namespace_id
    with monkeypatch.context() as patch:
        patch.setattr(segments, "_namespace_id", lambda kind: namespace_id(kind) + (kind == "pid"))
        segment = attach("given")
    assert segment.core.slot is not None
    assert not segment.is_of_this_pid_namespace
    return segment


def test_a_segment_of_a_container_that_lives_is_not_replaced(foreign):
    assert segments.replace_if_abandoned(foreign) is foreign
    assert foreign.has_its_name()


def test_a_segment_of_a_container_that_is_gone_is_replaced(foreign, monkeypatch):
    monkeypatch.setattr(segments, "_ABANDONED", 0.0)  # whoever was there is now
    found = segments.replace_if_abandoned(foreign)
    assert found.core.slot is not None
    assert found.is_of_this_pid_namespace
    assert not foreign.has_its_name()
    assert attach("given") is found
    assert segments.attach_again(foreign) is found


def test_where_there_is_no_room_for_another_the_old_one_stays(foreign, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segments, "_ABANDONED", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(SegmentUnavailableError, match="No space left"):
            segments.replace_if_abandoned(foreign)
    assert foreign.has_its_name()
    assert [one.name for one in foreign.path.parent.glob("*.new")] == []


def test_a_segment_of_our_own_is_not_replaced(monkeypatch):
    monkeypatch.setattr(segments, "_ABANDONED", 0.0)
    own = attach("given")
    assert segments.replace_if_abandoned(own) is own
