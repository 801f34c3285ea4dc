"""Instructions per call, counted by callgrind: exact where nanoseconds are noise.

A statement runs in a loop of 2,000 and of 52,000 passes, in a fresh interpreter under valgrind
each; the slope of the two totals is the price of one pass, without start, warm-up and exit.
With a fixed hash seed a call repeats to a fraction of an instruction, an `await` to four.

What would still differ from program to program is the interpreter's allocator: it keeps objects of
a size in pools, and an object that takes the last place of its pool costs up to 30 instructions
more than the next one, in every pass. So the loop makes no object of its own, as that of a `range`
would, and the pools are half full when it begins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FEW, MANY = 2_000, 52_000
TIMEOUT_S = 300.0

# The loop is a function, so that its names are fast locals; `await` works because it is a coroutine
# that is driven by hand: no event loop adds its own instructions. The kept bytes are of all sizes
# that CPython allocates from pools, 256 KiB of each; those in use before them lie behind theirs.
_PROGRAM = """\
import sys
from itertools import repeat
{setup}
kept = [bytes(size - 33) for size in range(48, 513, 16) for _ in range(2**18 // size)]
del kept[::2]
async def loop(passes, x):
    for _ in passes:
        {statement}
try:
    loop(repeat(None, int(sys.argv[1])), x).send(None)
except StopIteration:
    pass
"""


class CallgrindError(RuntimeError):
    """valgrind is missing or failed; the text has its last words."""


def instructions(statement: str, setup: str) -> float:
    """Instructions of one `statement`, in which the name `x` that `setup` defines is local.

    The empty loop's own share is included: subtract another measurement. Takes seconds.
    Raises CallgrindError.
    """
    return count_all({"x": (statement, setup)})["x"]


def count_all(cases: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """The same for several (statement, setup), two at a time."""
    program = {name: _PROGRAM.format(statement=s, setup=up) for name, (s, up) in cases.items()}
    jobs = [(name, passes) for name in cases for passes in (FEW, MANY)]
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        totals = list(pool.map(lambda job: _total(program[job[0]], job[1]), jobs))
    counted = dict(zip(jobs, totals, strict=True))
    return {name: (counted[name, MANY] - counted[name, FEW]) / (MANY - FEW) for name in cases}


def _total(program: str, passes: int) -> int:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CallgrindError("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="memguard-callgrind-") as folder:
        output = Path(folder) / "callgrind.out"
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={output}"]
        command += [sys.executable, "-c", program, str(passes)]
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0 or not output.exists():
            raise CallgrindError(f"valgrind ended with {done.returncode}: {done.stderr[-2000:]}")
        return read_total(output.read_text(encoding="utf-8"))


def read_total(profile: str) -> int:
    """The number of instructions in a profile of callgrind."""
    found = re.search(r"^(?:totals|summary): (\d+)", profile, re.MULTILINE)
    if found is None:
        raise CallgrindError("the profile has no total")
    return int(found[1])
