"""The file that processes share: whose it is, what is wrong with it, and what follows."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
from pathlib import Path

import pytest

from memguard_native import (
    CircuitBreaker,
    ConfigError,
    SegmentError,
    SegmentUnavailableError,
    _core,
)
from memguard_native import segment as segments
from memguard_native.segment import attach, look_at, path_of


@pytest.fixture
def path(segment_directory):
    """A segment that is there, and that this process has not attached to."""
    attach("fixture")
    made = path_of("fixture")
    path = path_of("given")
    os.rename(made, path)
    segments._attached.clear()
    return path


def test_the_file_is_of_this_user_alone_and_of_its_whole_size(segment_directory):
    segment = attach()
    assert segment.path == segment_directory / "default-v1.seg"
    assert segment.namespace == "default"
    found = segment.path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == _core.SEGMENT_BYTES
    assert found.st_blocks * 512 >= _core.SEGMENT_BYTES, "a hole in it is a SIGBUS on a full disk"
    assert stat.S_IMODE(segment_directory.stat().st_mode) == 0o700
    assert attach() is segment
    assert [one.name for one in segment_directory.iterdir() if one.name.endswith(".new")] == []


def test_the_namespace_comes_from_the_argument_or_the_environment(monkeypatch):
    monkeypatch.setenv("MEMGUARD_NAMESPACE", "shop")
    assert attach().namespace == "shop"
    assert attach("other").namespace == "other"


@pytest.mark.parametrize("namespace", ["", "a/b", "x" * 65, "ümlaut", "{x}", 5])
def test_a_bad_namespace_is_refused(namespace):
    with pytest.raises(ConfigError, match="namespace must be 1 to 64 letters"):
        attach(namespace)


# --- somebody else's: never used and never repaired -----------------------------------------------


def check_refused(path, words):
    before = os.lstat(path)
    for use in (
        lambda: attach("given"),
        lambda: look_at(path),
        lambda: CircuitBreaker("x", scope="host", namespace="given"),
    ):
        with pytest.raises(SegmentError, match=words) as raised:
            use()
        assert not isinstance(raised.value, SegmentUnavailableError)
        assert raised.value.path == str(path)
    after = os.lstat(path)
    assert (before.st_ino, before.st_mtime_ns, before.st_mode) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_mode,
    )


def test_a_file_that_others_may_use_is_refused(path):
    path.chmod(0o640)
    check_refused(path, "its mode is 0640, not 0600")


def test_a_file_with_another_link_is_refused(path):
    os.link(path, path.with_name("another"))
    check_refused(path, "it has 2 links, not 1")


def test_a_symbolic_link_is_refused(path):
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)
    check_refused(path, "it is a symbolic link")


def test_what_is_no_regular_file_is_refused(path):
    path.unlink()
    os.mkfifo(path, 0o600)
    holder = os.open(path, os.O_RDWR)  # so that opening it blocks nobody
    try:
        check_refused(path, "it is no regular file")
    finally:
        os.close(holder)


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    owner = path.stat().st_uid
    real = segments._check_is_ours
    monkeypatch.setattr(
        segments, "_check_is_ours", lambda p, found: None if p.suffix == ".lock" else real(p, found)
    )
    monkeypatch.setattr(segments, "_prepare_directory", lambda _path: None)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    check_refused(path, f"it belongs to user {owner}")


def test_a_directory_that_others_may_write_to_is_refused(segment_directory):
    segment_directory.mkdir()
    segment_directory.chmod(0o777)
    with pytest.raises(SegmentError, match="others may write to the directory"):
        attach()


def test_a_directory_of_another_user_is_refused(segment_directory, monkeypatch):
    segment_directory.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SegmentError, match="the directory belongs to user"):
        attach()


def test_a_directory_that_is_none_is_refused(segment_directory):
    segment_directory.write_text("")
    with pytest.raises(SegmentError, match="it is no directory"):
        attach()


# --- damaged, or of another time: made anew -------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, _core.SEGMENT_BYTES - 1, _core.SEGMENT_BYTES + 4096])
def test_a_file_of_another_size_is_set_aside_and_made_anew(path, size, caplog):
    os.truncate(path, size)
    with pytest.raises(SegmentError, match="it is damaged, or not a segment"):
        look_at(path)
    segment = attach("given")
    assert segment.core.breaker_names() == {}
    assert path.with_name(path.name + ".damaged").stat().st_size == size
    assert "is damaged: kept as" in caplog.text


@pytest.mark.parametrize("word", range(8))
def test_a_damaged_header_is_set_aside_and_made_anew(path, word):
    with path.open("r+b") as file:
        file.seek(8 * word)
        file.write(b"\xff" * 8)
    attach("given")
    assert look_at(path).core.header()["bytes"] == _core.SEGMENT_BYTES
    assert path.with_name(path.name + ".damaged").exists()


def test_a_segment_of_another_boot_is_made_anew(path, monkeypatch):
    segment = attach("given")
    segment.core.claim_breaker("old")
    segments._attached.clear()
    monkeypatch.setattr(segments, "_boot_id", lambda: b"another boot, 16")
    with pytest.raises(SegmentError, match="of another boot"):
        look_at(path)
    assert attach("given").core.breaker_names() == {}
    assert not path.with_name(path.name + ".damaged").exists()


# --- not to be had: local, with one warning -------------------------------------------------------


def check_local(caplog, words, namespace=None):
    with pytest.raises(SegmentUnavailableError, match=words):
        attach(namespace)
    with caplog.at_level(logging.WARNING):
        breakers = [CircuitBreaker(f"b{i}", 1, scope="host", namespace=namespace) for i in range(3)]
    warnings = [
        one.getMessage() for one in caplog.records if "is local to this" in one.getMessage()
    ]
    assert len(warnings) == 1, warnings
    assert all(one.scope == "local" for one in breakers)
    breakers[0].trip()
    assert breakers[1].state == "closed"
    return warnings[0]


def test_a_full_disk_makes_breakers_local(monkeypatch, caplog, segment_directory):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "make 7 MiB of room there" in check_local(caplog, "No space left on device")
    assert [one.name for one in segment_directory.iterdir()] == ["default-v1.seg.lock"]


def test_a_directory_that_cannot_be_made_makes_breakers_local(monkeypatch, caplog):
    monkeypatch.setenv("MEMGUARD_DIR", "/proc/no/such")
    assert "set MEMGUARD_DIR" in check_local(caplog, "No such file or directory")


def test_a_lock_that_is_held_makes_breakers_local(path, monkeypatch, caplog):
    monkeypatch.setattr(segments, "_LOCK_TIMEOUT", 0.05)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert "fuser" in check_local(caplog, "another process holds its lock", "given")
    finally:
        os.close(lock)


def test_a_lock_file_that_its_holder_removed_is_no_lock(path):
    lock = path.with_name(path.name + ".lock")
    removed = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    real = segments._try_lock

    def lock_after_the_removal(file):
        if lock.exists() and os.fstat(file).st_ino == os.fstat(removed).st_ino:
            lock.unlink()
        return real(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_try_lock", lock_after_the_removal)
        with attach("given").locked():
            assert lock.exists()
            other = os.open(lock, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(other)
    os.close(removed)


def test_another_time_namespace_makes_breakers_local(path, monkeypatch, caplog):
    monkeypatch.setattr(segments, "_namespace_id", lambda kind: 77 if kind == "time" else 1)
    check_local(caplog, "another time namespace, whose clock differs", "given")
    assert not path.with_name(path.name + ".damaged").exists()


def test_another_system_makes_breakers_local(monkeypatch, caplog):
    monkeypatch.setattr("sys.platform", "darwin")
    check_local(caplog, "shared memory is for Linux so far")


def test_a_full_segment_makes_further_breakers_local(caplog):
    shared = [CircuitBreaker(f"b{i}", scope="host") for i in range(_core.SEGMENT_BREAKERS)]
    assert all(one.scope == "host" for one in shared)
    with caplog.at_level(logging.WARNING):
        assert CircuitBreaker("one too many", scope="host").scope == "local"
    assert "it holds 64 breakers, which is all it can" in caplog.text
    assert CircuitBreaker("b0", scope="host").scope == "host"


# --- the page that draws it -----------------------------------------------------------------------


def test_the_documented_layout_is_the_layout():
    page = (Path(__file__).parents[2] / "docs/shared-memory.md").read_text()
    rows = re.findall(r"^\| ([a-z_, ]+) \| (\d+) \| (?:\d+ x )?(\d+) \|", page, re.MULTILINE)
    shown = {name: (int(offset), int(size)) for name, offset, size in rows}
    assert shown == _core.SEGMENT_LAYOUT


# --- slots ----------------------------------------------------------------------------------------


def test_without_a_free_slot_calls_are_counted_in_the_common_row():
    core = attach().core
    while core.slot is not None:
        core.claim_slot(os.stat("/proc/self/ns/pid").st_ino)
    breaker = CircuitBreaker("no slot", 2, scope="host")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            breaker.call(lambda: 1 / 0)
    assert breaker.state == "open"
    assert breaker.snapshot().failures == 2


def test_a_process_of_another_pid_namespace_takes_no_slot(caplog):
    core = attach().core
    core.claim_slot(12345)
    assert core.slot is None


def test_workers_are_shown_with_their_owner():
    core = attach().core
    (worker,) = core.workers()
    assert worker["pid"] == os.getpid()
    assert worker["is_alive"]
    core.release_slot()
    (worker,) = core.workers()
    assert worker["pid"] is None
    assert not worker["is_alive"]


# --- the native half refuses what it cannot use ---------------------------------------------------


@pytest.mark.parametrize("size", [0, 4096, _core.SEGMENT_BYTES - 1])
def test_a_buffer_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match="a segment is"):
        _core.Segment(bytearray(size))


def test_a_segment_mapped_read_only_is_not_written(path):
    before = path.read_bytes()
    core = look_at(path).core
    assert not core.is_writable
    for write in (
        lambda: core.claim_slot(0),
        lambda: core.claim_breaker("x"),
        lambda: core.push_sample((0,) * len(_core.SAMPLE_FIELDS)),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    core.release_slot()
    core.beat()
    core.workers(), core.header(), core.breaker_names(), core.snapshot(0), core.history(0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read", ["rules", "snapshot"])
def test_a_place_beyond_the_last_is_refused(read):
    with pytest.raises(IndexError):
        getattr(attach().core, read)(_core.SEGMENT_BREAKERS)
