"""The segment: a file in memory that all processes of one user and namespace share.

Breakers of scope "host" and the memory history of workers lie in it; `docs/shared-memory.md` draws
it. Here are the file, its lock and its owners; what is in it is the native core's.

A file is used only if it is this user's alone: a regular file of mode 0600 with one link, in a
directory that nobody else may write to. Anything else raises `SegmentError` and is never touched.
Where there is no file to be had, `SegmentUnavailableError` says what to do about it.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import logging
import mmap
import os
import re
import secrets
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memguard_native import _core
from memguard_native.errors import ConfigError, SegmentError, SegmentUnavailableError

logger = logging.getLogger("memguard_native.segment")

ATTACH_RETRY = 30.0
"""Seconds until `attach_again()` is tried again where it has failed: it may wait for a lock."""
_ABANDONED = 90.0  # the slowest sign of life is a sample, once a minute
_LOCK_TIMEOUT = 2.0
_LOCK_POLL = 0.005
_OLD = 3600.0
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SUFFIX = f"-v{_core.SEGMENT_VERSION}.seg"
# What lies beside a segment: group 1 is the segment's own name. Anything else is not ours, and
# MEMGUARD_DIR may be a directory with other files.
_BESIDE = re.compile(rf"(.+{re.escape(_SUFFIX)})\.(?:lock|damaged|[0-9a-f]{{16}}\.new)")
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_MODE = 0o600
_LINUX_ONLY = "keep scope='local' on this system"


class Segment:
    """A segment that this process has mapped; `core` reads and writes it."""

    def __init__(self, path: Path, core: _core.Segment, file_id: tuple[int, int]) -> None:
        self.path = path
        self.core = core
        self._file_id = file_id

    @property
    def namespace(self) -> str:
        """What its processes share by name."""
        return self.path.name.removesuffix(_SUFFIX)

    @property
    def is_of_this_pid_namespace(self) -> bool:
        """Whether its owners can be told to be alive or dead from here."""
        return bool(self.core.header()["pid_namespace"] == _namespace_id("pid"))

    def has_its_name(self) -> bool:
        """Whether the file is still found under its path: it may be replaced, or removed."""
        return _is_found(self.path, self._file_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes: to claim names and to publish rules, never for a call.

        Raises SegmentUnavailableError: another process holds the lock for more than 2 seconds.
        """
        with _locked(self.path):
            yield


# --- where ----------------------------------------------------------------------------------------


def directory() -> Path:
    """`MEMGUARD_DIR`, else a directory of this user in memory, else among temporary files."""
    given = os.environ.get("MEMGUARD_DIR")
    if given:
        return Path(given)
    name = f"memguard-{os.getuid()}"
    if os.path.isdir("/dev/shm"):
        return Path("/dev/shm") / name
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "memguard" if runtime else Path(tempfile.gettempdir()) / name


def checked_namespace(given: str | None) -> str:
    """`given`, else `MEMGUARD_NAMESPACE`, else "default".

    Raises ConfigError: it is not made of 1 to 64 letters, digits, dots, dashes and underscores.
    """
    namespace = os.environ.get("MEMGUARD_NAMESPACE") or "default" if given is None else given
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        allowed = "must be 1 to 64 letters, digits, dots, dashes and underscores"
        raise ConfigError("namespace", namespace, allowed)
    return namespace


def path_of(namespace: str) -> Path:
    """Where the segment of this namespace lies or would lie."""
    return directory() / f"{namespace}{_SUFFIX}"


def paths() -> list[Path]:
    """The segments that there are in the directory, sorted by name."""
    try:
        return sorted(path for path in directory().iterdir() if path.name.endswith(_SUFFIX))
    except OSError:
        return []


def left_overs() -> list[Path]:
    """What lies there to no use, sorted by name.

    Files of processes that were killed while they made a segment, an hour old at least; locks and
    damaged files whose segment is gone.
    """
    try:
        return sorted(path for path in directory().iterdir() if _is_left_over(path))
    except OSError:
        return []


def _is_left_over(path: Path) -> bool:
    beside = _BESIDE.fullmatch(path.name)
    if beside is None:
        return False
    if path.suffix == ".new":
        return time.time() - path.lstat().st_mtime > _OLD
    return not os.path.lexists(path.with_name(beside[1]))


# --- attaching ------------------------------------------------------------------------------------

_attached: dict[Path, Segment] = {}
_attaching = threading.RLock()


def attach(namespace: str | None = None) -> Segment:
    """The segment of a namespace, made if there is none; this process takes a slot in it.

    Once per process: later calls return the same. A file of another boot, or a damaged one, is
    replaced; the damaged one is kept beside it under ".damaged".

    Raises:
        ConfigError: the namespace is not allowed.
        SegmentError: the file or its directory is somebody else's, or open to others.
        SegmentUnavailableError: there is no room or no directory for it, it is locked, or the
            system has no shared memory that we know.
    """
    path = path_of(checked_namespace(namespace))
    with _attaching:
        segment = _attached.get(path)
        if segment is None:
            _check_system(path)
            segment = _open_or_create(path)
            if segment.core.slot is None:
                logger.warning(
                    "%s: all %d slots are taken, or they count other process numbers; this "
                    "process counts in the common row, and its probes are freed by their lease",
                    path,
                    _core.SEGMENT_SLOTS,
                )
            _attached[path] = segment
        return segment


def attach_again(segment: Segment) -> Segment:
    """The segment that has the name of `segment` now: for when it has lost it.

    Raises as `attach` does.
    """
    with _attaching:
        if _attached.get(segment.path) is not segment:
            return attach(segment.namespace)
        del _attached[segment.path]
        try:
            found = attach(segment.namespace)
        except SegmentError:
            _attached[segment.path] = segment
            raise
        segment.core.release_slot()
        return found


def replace_if_abandoned(segment: Segment) -> Segment:
    """A new one in place of `segment` if that counts the process numbers of another namespace, of a
    container that is gone for example, and nobody has given a sign of life there for 90 seconds;
    else itself. Whoever has the old one attaches again.

    Raises SegmentUnavailableError: the lock is held, or there is no room for it.
    """
    if segment.is_of_this_pid_namespace or any(
        worker["heartbeat_age"] < _ABANDONED for worker in segment.core.workers()
    ):
        return segment
    try:
        with _attaching, _locked(segment.path):
            if not segment.has_its_name():
                return segment
            found = _create(segment.path)
            found.core.claim_slot(_namespace_id("pid"))
            _attached[segment.path] = found
            return found
    except OSError as error:
        raise _unavailable(segment.path, error) from error


def look_at(path: Path) -> Segment:
    """The segment of this path mapped read-only, for people; it takes no slot.

    Raises SegmentError: there is none, it is damaged, of another boot, or somebody else's.
    """
    _check_system(path)
    try:
        return _map(path, writable=False)
    except FileNotFoundError:
        problem, cure = "there is no such segment", "start a process that uses it"
        raise SegmentUnavailableError(str(path), problem, cure) from None
    except _UnusableError as fault:
        raise SegmentError(str(path), fault.problem, fault.cure) from None


def remove_if_unused(path: Path) -> bool:
    """Remove a segment in which no living process has a slot, and what lies beside it.

    Whether it is gone. One of another time or process namespace stays: its owners cannot be told
    to be dead. The lock is held from the look at the owners to the end, and a process that attaches
    takes its slot under the same lock: so none loses a segment that it has just found.

    Raises SegmentError: it or its directory is somebody else's, or its lock is held. OSError.
    """
    check_directory(path.parent)
    with _locked(path):
        is_free = _is_unused(path)
        if is_free:
            for one in (path, path.with_name(path.name + ".damaged"), _lock_of(path)):
                one.unlink(missing_ok=True)
        return is_free


def _is_unused(path: Path) -> bool:
    try:
        segment = _map(path, writable=False)
    except FileNotFoundError:
        return True
    except _UnusableError as fault:
        return fault.kind != "other_time_namespace"
    return segment.is_of_this_pid_namespace and not any(
        worker["is_alive"] for worker in segment.core.workers()
    )


def remove_left_over(path: Path) -> bool:
    """Remove one of `left_overs()`; whether it is gone. It stays if it is of use by now.

    Raises SegmentError: the directory is somebody else's, or the segment's lock is held. OSError.
    """
    beside = _BESIDE.fullmatch(path.name)
    if beside is None:
        return False
    check_directory(path.parent)
    segment = path.with_name(beside[1])
    with _locked(segment):
        is_gone = not os.path.lexists(path) or _is_left_over(path)
        if is_gone:
            path.unlink(missing_ok=True)
        if not os.path.lexists(segment):
            _lock_of(segment).unlink(missing_ok=True)
        return is_gone


def successor_of(segment: Segment) -> Segment:
    """The segment that this process has attached to again in its place; else itself."""
    return _attached.get(segment.path, segment)


def attached() -> tuple[Segment, ...]:
    """The segments that this process has a slot in."""
    return tuple(_attached.values())


def _check_system(path: Path) -> None:
    if not sys.platform.startswith("linux"):
        raise SegmentUnavailableError(str(path), "shared memory is for Linux so far", _LINUX_ONLY)


class _UnusableError(Exception):
    """A file of ours that cannot be used here; `kind` as `_core.Segment.fault()` says."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.problem = {
            "damaged": "it is damaged, or not a segment",
            "other_boot": "it is of another boot of the machine",
            "other_time_namespace": "it is of another time namespace, whose clock differs",
        }[kind]
        self.cure = (
            "give the container a directory or a namespace of its own"
            if kind == "other_time_namespace"
            else "memguard doctor --clean removes it"
        )


def _open_or_create(path: Path) -> Segment:
    try:
        _prepare_directory(path.parent)
        with _locked(path):
            segment = _map_or_create(path)
            # Under the lock, so that nobody finds the segment without an owner, and removes it.
            segment.core.claim_slot(_namespace_id("pid"))
            return segment
    except OSError as error:
        raise _unavailable(path, error) from error


def _map_or_create(path: Path) -> Segment:
    try:
        return _map(path, writable=True)
    except FileNotFoundError:
        return _create(path)
    except _UnusableError as fault:
        if fault.kind == "other_time_namespace":
            raise SegmentUnavailableError(str(path), fault.problem, fault.cure) from None
        if fault.kind == "damaged":
            kept = path.with_name(path.name + ".damaged")  # for who wants to know why
            os.replace(path, kept)
            logger.error("%s is damaged: kept as %s, and made anew", path, kept)
        return _create(path)


def _unavailable(path: Path, error: OSError) -> SegmentUnavailableError:
    return SegmentUnavailableError(str(path), f"{error.strerror or error}", _cure(error))


def _cure(error: OSError) -> str:
    size = _core.SEGMENT_BYTES / 2**20
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make {size:.0f} MiB of room there (docker: --shm-size), or set MEMGUARD_DIR"
    return f"set MEMGUARD_DIR to a directory in memory with {size:.0f} MiB, of this user alone"


def _prepare_directory(path: Path) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    check_directory(path)


def check_directory(path: Path) -> None:
    """Raise SegmentError unless it is a directory that nobody but this user may write to."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise SegmentError(str(path), "it is no directory", "set MEMGUARD_DIR to one")
    if found.st_uid != os.geteuid():
        problem = f"the directory belongs to user {found.st_uid}"
        raise SegmentError(str(path), problem, "set MEMGUARD_DIR to one of your own")
    if found.st_mode & 0o022:
        raise SegmentError(str(path), "others may write to the directory", f"chmod 700 {path}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock beside the segment. A file of its own: the segment itself may be replaced."""
    lock = _lock_of(path)
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | _OPEN_FLAGS, _FILE_MODE)
        _lock_files.add(file)
        try:
            _check_is_ours(lock, os.fstat(file))
            while not _try_lock(file):
                if time.monotonic() > deadline:
                    problem = f"another process holds its lock for more than {_LOCK_TIMEOUT:g} s"
                    cure = f"look for a stopped process with: fuser {lock}"
                    raise SegmentUnavailableError(str(path), problem, cure)
                time.sleep(_LOCK_POLL)
            # Whoever held it may have removed it: then others lock another file of this name.
            if _is_found(lock, _file_id(os.fstat(file))):
                yield
                return
        finally:
            _lock_files.discard(file)
            os.close(file)  # gives the lock up


# Open now. A lock belongs to the open file, which a forked child has as well: it would hold the
# lock for as long as it lives.
_lock_files: set[int] = set()


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_found(path: Path, file_id: tuple[int, int]) -> bool:
    """Whether this very file is what its path leads to."""
    try:
        return _file_id(os.stat(path, follow_symlinks=False)) == file_id
    except OSError:
        return False


def _check_is_ours(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        problem = "it is no regular file"
    elif found.st_uid != os.geteuid():
        problem = f"it belongs to user {found.st_uid}"
    elif found.st_mode & 0o077:
        problem = f"others may use it: its mode is {stat.S_IMODE(found.st_mode):04o}, not 0600"
    elif found.st_nlink > 1:  # with none it was removed just now, which others may do at any time
        problem = f"it has {found.st_nlink} links, not 1"
    else:
        return
    raise SegmentError(str(path), problem, "remove it, or set MEMGUARD_DIR to another directory")


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | _OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            cure = "remove it, or set MEMGUARD_DIR to another directory"
            raise SegmentError(str(path), "it is a symbolic link", cure) from None
        raise


def _map(path: Path, *, writable: bool) -> Segment:
    """Maps a file that is there. Raises FileNotFoundError, _UnusableError, SegmentError."""
    file = _open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        found = os.fstat(file)
        _check_is_ours(path, found)
        if found.st_size != _core.SEGMENT_BYTES:
            raise _UnusableError("damaged")
        core = _core.Segment(_mapping(file, writable=writable))
    finally:
        os.close(file)
    if kind := core.fault(**_surroundings()):
        raise _UnusableError(kind)
    return Segment(path, core, _file_id(found))


def _mapping(file: int, *, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    return mmap.mmap(file, _core.SEGMENT_BYTES, access=access)


def _create(path: Path) -> Segment:
    """Makes the file under another name and renames it: nobody maps a half-made one."""
    making = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    file = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, _FILE_MODE)
    try:
        os.fchmod(file, _FILE_MODE)  # whatever the umask
        # All of it now: on a full disk a page that is missing later is a SIGBUS.
        os.posix_fallocate(file, 0, _core.SEGMENT_BYTES)
        mapping = _mapping(file, writable=True)
        _core.Segment.format(mapping, **_surroundings(), random_id=secrets.randbits(64))
        # They stay in the file; who has made it is not to count 7 MB more than all others.
        mapping.madvise(mmap.MADV_DONTNEED)
        os.rename(making, path)
        return Segment(path, _core.Segment(mapping), _file_id(os.fstat(file)))
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _file_id(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


# --- where this process is ------------------------------------------------------------------------


def _surroundings() -> dict[str, Any]:
    return {
        "boot_id": _boot_id(),
        "time_namespace": _namespace_id("time"),
        "pid_namespace": _namespace_id("pid"),
    }


def _boot_id() -> bytes:
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


def _namespace_id(kind: str) -> int:
    """Its inode number; 0 where the kernel has no such namespaces."""
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


def _release_slots() -> None:
    for segment in attached():
        segment.core.release_slot()


def _after_fork_in_child() -> None:
    global _attaching
    _attaching = threading.RLock()
    for file in _lock_files:
        os.close(file)
    _lock_files.clear()
    for segment in attached():
        segment.core.forget_slot()
        segment.core.claim_slot(_namespace_id("pid"))


atexit.register(_release_slots)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
