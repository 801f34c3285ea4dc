"""From when to when a worker was there: by its notes, by its end, and what that comes to."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.recycle.lives import Life, Lives, Shortage, shortage


@contextlib.contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def note(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lives"


def test_nobody_is_there_before_the_first_note(path: Path) -> None:
    lives = Lives(path)
    lives.look()
    assert lives.all == []


def test_worker_is_there_from_its_note_to_the_one_of_its_end(path: Path) -> None:
    with sleeping() as process, contextlib.closing(Lives(path)) as lives:
        ready_at = time.monotonic()
        note(path, f"ready {process.pid} {ready_at}")
        lives.look()
        (life,) = lives.present
        assert (life.pid, life.ready_at) == (process.pid, ready_at)
        assert 0.0 <= life.boot < 5.0
        note(path, f"stopping {process.pid} {ready_at + 1.5}")
        lives.look()
        assert lives.present == []
        assert life.ended_at == ready_at + 1.5


def test_worker_that_is_killed_has_ended_though_nobody_reaps_it(path: Path) -> None:
    with sleeping() as process, contextlib.closing(Lives(path)) as lives:
        note(path, f"ready {process.pid} {time.monotonic()}")
        lives.look()
        process.kill()
        eventually(lambda: lives.look() or not lives.present)
        assert lives.all[0].ended_at is not None


def test_worker_that_was_gone_before_it_was_seen_took_no_time(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    note(path, f"ready {process.pid} 5.0")
    lives = Lives(path)
    lives.look()
    assert lives.all == [Life(process.pid, 5.0, 5.0, ended_at=5.0)]


def test_new_worker_is_told_once(path: Path) -> None:
    heard: list[int] = []
    with sleeping() as process:
        lives = Lives(path, on_ready=lambda life: heard.append(life.pid))
        with contextlib.closing(lives):
            note(path, f"ready {process.pid} {time.monotonic()}")
            lives.look()
            lives.look()
    assert heard == [process.pid]


def test_end_of_a_process_that_was_never_ready_is_nothing(path: Path) -> None:
    lives = Lives(path)
    note(path, "stopping 1 2.0")
    lives.look()
    assert lives.all == []


def eventually(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 10.0
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- shortage ---------------------------------------------------------------------------------


def life(ready_at: float, ended_at: float | None = None) -> Life:
    return Life(1, ready_at, ready_at, ended_at)


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ([life(0.0), life(5.0)], Shortage(0.0, 0.0)),
        # One dies first, one follows before; both at once.
        ([life(0.0, 12.0), life(0.0), life(12.5)], Shortage(0.5, 0.0)),
        ([life(0.0, 12.0), life(0.0), life(11.5)], Shortage(0.0, 0.0)),
        ([life(0.0, 12.0), life(0.0, 13.0), life(15.0), life(16.0)], Shortage(4.0, 2.0)),
        # What was before and after does not count.
        ([life(0.0, 9.0), life(0.0), life(9.5), life(19.0, 25.0)], Shortage(0.0, 0.0)),
        ([life(0.0), life(0.0, 19.0), life(30.0)], Shortage(1.0, 0.0)),
        ([life(0.0), life(10.25)], Shortage(0.25, 0.0)),
        ([], Shortage(10.0, 10.0)),
    ],
)
def test_shortage_is_the_time_with_too_few(lives: list[Life], expected: Shortage) -> None:
    assert shortage(lives, 2, 10.0, 20.0) == expected
