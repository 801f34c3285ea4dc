"""Asks one library one question: `python -m bench.corners.ask LIBRARY PROBE`.

In a process of its own, whose end nothing can delay: a library that hangs has answered too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path

from bench.corners.adapters import LIBRARIES
from bench.corners.probes import PROBES
from bench.corners.tools import AnsweredError

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20.0


class ProbeError(Exception):
    """A probe raised: its own fault or the installation's, and no answer of the library."""


def version(library: str) -> str | None:
    """Of what is installed; None: nothing is."""
    try:
        return metadata.version(LIBRARIES[library].package)
    except metadata.PackageNotFoundError:
        return None


def ask(library: str, probe: str, limit: float = LIMIT_S) -> str:
    """The answer, after `limit` seconds at most.

    Raises ProbeError.
    """
    if version(library) is None:
        return "not installed"
    return answer_of([sys.executable, "-m", "bench.corners.ask", library, probe], limit)


def answer_of(command: list[str], limit: float) -> str:
    """What the command prints last; that it hangs or is killed by a signal are answers.

    Raises ProbeError.
    """
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode < 0:
        return f"dies of {signal.Signals(-done.returncode).name}"
    if done.returncode > 0:
        raise ProbeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def answer(library: str, probe: str) -> str:
    """Ask in this process."""
    try:
        return PROBES[probe](LIBRARIES[library])
    except AnsweredError as found:
        return str(found)


def main(library: str, probe: str) -> None:
    code = 0
    try:
        print(answer(library, probe), flush=True)
    except BaseException:  # noqa: BLE001 - told to whoever asked, by the code
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    # Threads that a library has blocked for ever, and what it does at exit, have no say.
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
