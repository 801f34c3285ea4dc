"""Hash checks: each file once, again after any change, and never in the way of a start."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from memguard_native.embedding import verify
from memguard_native.embedding.errors import ModelError
from memguard_native.embedding.verify import record_path, verify_files

CONTENT = b"weights"
EXPECTED = {"w.bin": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []

    def file_digest(file, algorithm):
        names.append(Path(file.name).name)
        return original(file, algorithm)

    original = hashlib.file_digest
    monkeypatch.setattr(verify.hashlib, "file_digest", file_digest)
    return names


def test_a_verified_file_is_not_hashed_again(directory, hashed):
    verify_files(directory, EXPECTED, "cure")
    verify_files(directory, EXPECTED, "cure")
    assert hashed == ["w.bin"]


def test_a_rewritten_file_is_hashed_again_even_with_its_old_time_stamp(directory, hashed):
    path = directory / "w.bin"
    verify_files(directory, EXPECTED, "cure")
    before = path.stat()
    path.write_bytes(b"weighty")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="was altered; cure"):
        verify_files(directory, EXPECTED, "cure")
    assert hashed == ["w.bin", "w.bin"]


def test_another_expectation_is_hashed_again(directory):
    verify_files(directory, EXPECTED, "cure")
    with pytest.raises(ModelError, match="not 0000"):
        verify_files(directory, {"w.bin": "0" * 64}, "cure")


def test_a_refused_file_is_not_put_on_record(directory, hashed):
    for _ in range(2):
        with pytest.raises(ModelError):
            verify_files(directory, {"w.bin": "0" * 64}, "cure")
    assert hashed == ["w.bin", "w.bin"]


def test_a_missing_file_is_named_with_the_cure(directory):
    with pytest.raises(ModelError, match=r"gone\.bin: cannot be read .*; type this"):
        verify_files(directory, {"gone.bin": "0" * 64}, "type this")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"x": 1}'])
def test_a_damaged_record_is_ignored_and_replaced(directory, hashed, content):
    record_path().parent.mkdir(parents=True)
    record_path().write_bytes(content)
    verify_files(directory, EXPECTED, "cure")
    verify_files(directory, EXPECTED, "cure")
    assert hashed == ["w.bin"]


def test_a_record_that_cannot_be_written_costs_only_the_hashing(directory, hashed):
    record = directory / "w.bin" / "below-a-file"
    verify_files(directory, EXPECTED, "cure", record=record)
    verify_files(directory, EXPECTED, "cure", record=record)
    assert hashed == ["w.bin", "w.bin"]


def test_records_of_several_models_live_together(directory, hashed):
    other = directory / "other"
    other.mkdir()
    (other / "w.bin").write_bytes(CONTENT)
    for _ in range(2):
        verify_files(directory, EXPECTED, "cure")
        verify_files(other, EXPECTED, "cure")
    assert hashed == ["w.bin", "w.bin"]
    assert [path.name for path in record_path().parent.iterdir()] == ["verified.json"]
