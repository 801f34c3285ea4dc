"""The supervisor is light: small, and without anything that the application or its server needs.

So the kernel has no reason to end it, and nothing that it imports can fail or start a thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from .supervised import HERE, START_SECONDS, Service

pytestmark = pytest.mark.stress

MOST_MIB = 20
HEAVY = {"application", "asyncio", "h11", "httptools", "numpy", "psutil", "uvicorn", "uvloop"}
QUICK = ["--min-interval", "0", "--min-lifetime", "0", "--ready-timeout", f"{START_SECONDS:g}s"]
# Says what `run` has imported by the time all workers are ready, and ends.
RUN = """
import os, signal, sys
before = set(sys.modules)
from memguard_native import recycling

def on_ready(url):
    print(*sorted(sys.modules.keys() - before))
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(recycling.run("application:app", port=0, start=sys.argv[1], on_ready=on_ready))
"""


@pytest.fixture(params=["zygote", "spawn"])
def start(request):
    return request.param


@contextmanager
def served(directory, *options):
    """`memguard serve`, which logs whatever it imports; its workers do not."""
    log = directory / "log"
    command = ["-X", "importtime", "-m", "memguard_native", "serve", "application:app"]
    with (
        log.open("a") as stderr,
        subprocess.Popen(
            [sys.executable, *command, "--port", "0", "--namespace", "test", *QUICK, *options],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        running = Service(process, directory, log)
        try:
            assert process.stdout.readline().startswith("Serving"), running.told()
            yield running
        finally:
            process.kill()


def imported(running):
    """All that its supervisor has imported so far."""
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", running.told(), re.MULTILINE))


def own_mib(pid):
    """Of no other process, and without the segment: that is everybody's, but who has made it was
    the first to touch its pages, most of which nobody else has yet."""
    own_kib = 0
    is_segment = False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            name, *values = line.split()
            if not name.endswith(":"):
                is_segment = line.rstrip().endswith(".seg")
            elif name in ("Private_Clean:", "Private_Dirty:") and not is_segment:
                own_kib += int(values[0])
    return own_kib / 1024


def test_a_supervisor_that_has_done_all_it_can_is_small_and_light(tmp_path, start):
    with served(tmp_path, "--workers", "2", "--start", start) as running:
        running.recycle(0)
        running.until(lambda: len(running.recycles()) == 1)
        running.signal(signal.SIGHUP)
        running.until(lambda: len(running.recycles()) == 3)
        os.kill(running.workers("ready")[0]["pid"], signal.SIGKILL)
        running.until(lambda: len(running.recycles()) == 4 and len(running.workers("ready")) == 2)
        running.signal(signal.SIGUSR1)
        running.until(lambda: '{"schema"' in running.told())
        assert 1 < own_mib(running.process.pid) < MOST_MIB
        assert running.end() == 0
        assert "memguard_native.recycling.supervisor" in imported(running)
        assert HEAVY & {name.partition(".")[0] for name in imported(running)} == set()


def test_run_imports_the_standard_library_and_ours_only(start):
    ended = subprocess.run(
        [sys.executable, "-c", RUN, start],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    packages = {name.partition(".")[0] for name in ended.stdout.split()}
    assert packages - sys.stdlib_module_names == {"memguard_native"}
    assert HEAVY & packages == set()
