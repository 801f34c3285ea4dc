"""The programs of bench/cpp compile, run, and say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import native


@pytest.fixture(scope="module")
def closed_path() -> Iterator[Path]:
    with native.compiled("closed_path") as program:
        yield program


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["word", "counter"])
def test_closed_path_tells_a_rate(closed_path: Path, what: str, threads: int) -> None:
    assert native.number(closed_path, what, threads, 100_000) > 0.0


@pytest.mark.parametrize("arguments", [("word", 0, 1), ("word", 1, 0), ("lock", 1, 1), ("word",)])
def test_wrong_arguments_are_an_error(closed_path: Path, arguments: tuple[object, ...]) -> None:
    with pytest.raises(native.NativeError, match=r"ended with 2: (usage|closed_path)"):
        native.number(closed_path, *arguments)


def test_missing_compiler_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda _: None)
    with pytest.raises(native.NativeError, match=r"apt-get install g\+\+"), native.compiled("x"):
        pass


def test_program_that_does_not_compile_is_an_error_of_the_compiler() -> None:
    with (
        pytest.raises(native.NativeError, match="no_such_program"),
        native.compiled("no_such_program"),
    ):
        pass
