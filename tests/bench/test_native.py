"""The programs of bench/cpp compile, run, and say what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import native


@pytest.fixture(scope="module")
def closed_path() -> Iterator[Path]:
    with native.compiled("closed_path") as program:
        yield program


needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="two processes that spin need a core each, and Linux for their segment",
)


@pytest.fixture(scope="module")
def shared_path() -> Iterator[Path]:
    with native.compiled("shared_path") as program:
        yield program


@pytest.fixture(scope="module")
def shared_seen() -> Iterator[Path]:
    with native.compiled("shared_seen") as program:
        yield program


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["word", "counter"])
def test_closed_path_tells_a_rate(closed_path: Path, what: str, threads: int) -> None:
    assert native.number(closed_path, what, threads, 100_000) > 0.0


@pytest.mark.parametrize("arguments", [("word", 0, 1), ("word", 1, 0), ("lock", 1, 1), ("word",)])
def test_wrong_arguments_are_an_error(closed_path: Path, arguments: tuple[object, ...]) -> None:
    with pytest.raises(native.NativeError, match=r"ended with 2: (usage|closed_path)"):
        native.number(closed_path, *arguments)


@needs_two_cores
@pytest.mark.parametrize("what", ["word", "counter"])
def test_shared_path_tells_two_rates_of_each_burst(shared_path: Path, what: str) -> None:
    rates = native.numbers(shared_path, what, 3, 10_000)
    assert len(rates) == 6
    assert min(rates) > 0.0


@needs_two_cores
@pytest.mark.parametrize("arguments", [("word", 0, 1), ("word", 1, 0), ("lock", 1, 1), ("word",)])
def test_shared_path_with_wrong_arguments_is_an_error(
    shared_path: Path, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(native.NativeError, match=r"ended with 2: (usage|shared_path)"):
        native.numbers(shared_path, *arguments)


@needs_two_cores
@pytest.mark.parametrize("change", ["word", "trip", "fifth", "failures"])
def test_shared_seen_tells_how_long_the_sight_of_a_change_took(
    shared_seen: Path, change: str
) -> None:
    minimum, median, p99 = native.numbers(shared_seen, change, 200)
    assert 0.0 < minimum <= median <= p99


@needs_two_cores
@pytest.mark.parametrize("arguments", [("word", 0), ("close", 1), ("word",)])
def test_shared_seen_with_wrong_arguments_is_an_error(
    shared_seen: Path, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(native.NativeError, match=r"ended with 2: (usage|shared_seen)"):
        native.numbers(shared_seen, *arguments)


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
