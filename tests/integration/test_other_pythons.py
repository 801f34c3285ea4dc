"""Processes of another CPython use the same segment: its layout knows nothing of Python.

The native core is built for the other interpreter into build/other, once. Which one: $OTHER_PYTHON,
else any CPython from 3.11 on that has another version than this one, on PATH or under pyenv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memguard_native import CircuitBreaker, State
from memguard_native.segment import attach

pytestmark = [
    pytest.mark.slow,  # building the core once more takes a minute or two
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory is for Linux"),
]

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent

OTHER = """
import sys
from memguard_native import CircuitBreaker, CircuitOpenError
from memguard_native.memory.sample import MemorySample
from memguard_native.segment import attach
breaker = CircuitBreaker("of two Pythons", 3, scope="host", failure_rate=0.5, minimum_calls=100)
for _ in range(int(sys.argv[1])):
    try:
        breaker.call(lambda: 1 / 0)
    except (ZeroDivisionError, CircuitOpenError):
        pass
attach().core.push_sample(MemorySample(1, 2, rss_bytes=3))
print(breaker.state, breaker.snapshot().failures, breaker.snapshot().last_error)
"""


def candidates() -> Iterator[str]:
    if "OTHER_PYTHON" in os.environ:
        yield os.environ["OTHER_PYTHON"]
        return
    for minor in range(14, 10, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield found
        yield from map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))


def version_of(python: str) -> str | None:
    """As "3.13", if it is a CPython with headers that runs; else None."""
    code = (
        "import os, sys, sysconfig; assert os.path.exists(sysconfig.get_path('include')"
        " + '/Python.h'); assert not sysconfig.get_config_var('Py_GIL_DISABLED');"
        " print('%d.%d' % sys.version_info[:2])"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


@pytest.fixture(scope="module")
def other_python() -> list[str]:
    """The command that runs another CPython with this package."""
    mine = "{}.{}".format(*sys.version_info)
    found = {version: python for python in candidates() if (version := version_of(python))}
    others = sorted((set(found) - {mine}), key=lambda version: int(version.partition(".")[2]))
    if not others:
        pytest.skip("no other CPython with headers: name one by OTHER_PYTHON=/path/to/python3.13")
    version = others[-1]
    build = ROOT / "build" / "other" / version
    configure = [
        *(str(TOOLS / "cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={TOOLS / 'ninja'}",
        f"-DPython_EXECUTABLE={found[version]}",
        f"-Dpybind11_DIR={pybind11_directory()}",
        *("-DSKBUILD=2", "-DSKBUILD_PROJECT_VERSION=0", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"),
    ]
    for command in (configure, [str(TOOLS / "cmake"), "--build", str(build)]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    package = build / "package" / "memguard_native"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "memguard_native", package)
    for module in build.glob("_core*"):
        shutil.copy(module, package)
    return ["env", f"PYTHONPATH={package.parent}", found[version]]


def pybind11_directory() -> str:
    command = [sys.executable, "-m", "pybind11", "--cmakedir"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_two_pythons_share_a_breaker(other_python):
    breaker = CircuitBreaker("of two Pythons", 3, scope="host", failure_rate=0.5, minimum_calls=100)
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 / 0)

    def fail_elsewhere(times: int) -> str:
        command = [*other_python, "-c", OTHER, str(times)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert fail_elsewhere(1) == "closed 2 None"
    assert breaker.snapshot().window_failures == 2
    assert fail_elsewhere(2) == "open 3 ('ZeroDivisionError', 'division by zero')"
    assert breaker.state is State.open
    assert breaker.snapshot().rejections == 1
    assert breaker.snapshot().last_error == ("ZeroDivisionError", "division by zero")
    slots = [one["slot"] for one in attach().core.workers() if one["pid"] is None]
    assert [attach().core.history(slot)[-1][0][2] for slot in slots] == [3]
