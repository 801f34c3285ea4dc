"""Checks model files by SHA-256, once per file as it is.

Hashing 90 MB takes 0.1 s, too long for every start. A file that passed is put on record with its
size, time stamps and inode, and is not hashed again while all of these are the same. The record is
a JSON file in the user's cache directory; without it, or where it cannot be written, files are
hashed each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from memguard_native.embedding.errors import ModelError


def record_path() -> Path:
    """Return where the record of verified files lies: $XDG_CACHE_HOME, or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "memguard-native", "verified.json")


def verify_files(
    directory: Path, expected: Mapping[str, str], cure: str, *, record: Path | None = None
) -> None:
    """Compare files below `directory` with the SHA-256 that `expected` gives for each relative
    path.

    Raises ModelError, which names `cure`: a file is missing, unreadable or different.
    """
    record = record or record_path()
    known = _load(record)
    verified = dict(known)
    for name, sha256 in expected.items():
        path = directory / name
        try:
            identity = [sha256, *_identity(path)]
            if known.get(str(path)) == identity:
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(path, f"cannot be read ({error.strerror})", cure) from error
        if found != sha256:
            raise ModelError(path, f"has SHA-256 {found}, not {sha256}: it was altered", cure)
        verified[str(path)] = identity
    if verified != known:
        # A read-only home costs 0.1 s per start, nothing more.
        with contextlib.suppress(OSError):
            _store(record, verified)


def _identity(path: Path) -> list[int]:
    # The change time as well: unlike the modification time, no program can set it back.
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _load(record: Path) -> dict[str, object]:
    try:
        known = json.loads(record.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # no record, or a damaged one: everything is hashed again
    return known if isinstance(known, dict) else {}


def _store(record: Path, verified: dict[str, object]) -> None:
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written aside and renamed, so that a server starting meanwhile reads the old record or the new
    # one.
    descriptor, temporary = tempfile.mkstemp(dir=record.parent, prefix=record.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(verified, file)
        os.replace(temporary, record)
    except OSError:
        os.unlink(temporary)
        raise
