"""Programs of bench/cpp: compiled when they are asked for, and run.

The core is headers only, so a program is one call of the compiler.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-pthread", "-Wall", "-Wextra", "-Werror")
TIMEOUT_S = 120.0


class NativeError(RuntimeError):
    """There is no compiler, or it or the program failed; the text has the last words."""


@contextlib.contextmanager
def compiled(name: str) -> Iterator[Path]:
    """The executable of bench/cpp/NAME.cpp, for as long as the context lasts.

    Raises NativeError.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise NativeError("there is no C++ compiler: apt-get install g++")
    with tempfile.TemporaryDirectory(prefix="memguard-native-") as folder:
        program = Path(folder) / name
        source = ROOT / "bench" / "cpp" / f"{name}.cpp"
        include = ROOT / "cpp" / "include"
        _run([compiler, *FLAGS, f"-I{include}", str(source), "-o", str(program)])
        yield program


def number(program: Path, *arguments: object) -> float:
    """The number that the program prints.

    Raises NativeError.
    """
    (found,) = numbers(program, *arguments)
    return found


def numbers(program: Path, *arguments: object) -> list[float]:
    """The numbers that the program prints, on one line.

    Raises NativeError.
    """
    return [float(word) for word in _run([str(program), *map(str, arguments)]).split()]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise NativeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
