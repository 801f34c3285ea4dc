"""`@pytest.mark.no_leak`, as pytest runs it: each in a process of its own."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "memguard_native.integrations.pytest_plugin"


@pytest.fixture
def run(pytester, monkeypatch):
    """run(source) runs a file that holds it, without the plugins of others: they take a second."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile("import ctypes, functools, itertools, os, threading, pytest\n" + source)
        return pytester.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", *arguments)

    return run


def test_it_is_installed_as_a_plugin():
    (found,) = (one for one in entry_points(group="pytest11") if one.name == "memguard")
    assert found.value == PLUGIN


def test_a_dict_that_grows_fails(run):
    done = run("""
KEPT = {}

@pytest.mark.no_leak
def test_it():
    KEPT[len(KEPT)] = [object()]
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "no_leak: memory grew with each batch of calls (310 calls so far)",
            "*Python objects: +*blocks a call",
            "types that grow, objects a call:",
            "*+1.0  list",
            "allocated at, bytes a call:",
            "*test_a_dict_that_grows_fails.py:*",
        ]
    )


def test_memory_of_malloc_that_is_not_freed_fails(run):
    done = run("""
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

@pytest.mark.no_leak
def test_small():
    malloc(64)

@pytest.mark.no_leak
def test_large():
    malloc(1_000_000)
""")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        ["*native heap*: +8?.? bytes a call", "*native heap*: +100????.? bytes a call"]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is read from /proc")
def test_a_mapping_that_stays_fails(run):
    done = run("""
mmap = ctypes.CDLL(None).mmap
mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                 ctypes.c_long]

@pytest.mark.no_leak
def test_it():
    mmap(None, 8192, 3, 0x22, -1, 0)
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*mapped memory: +8192.0 bytes a call"])


def test_a_descriptor_that_stays_open_fails(run):
    done = run("""
@pytest.mark.no_leak
def test_it():
    os.open(os.devnull, os.O_RDONLY)
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*file descriptors: +1.0 a call", "*50  /dev/null"])


def test_a_thread_that_stays_fails(run):
    done = run("""
EVENT = threading.Event()

@pytest.mark.no_leak(iterations=10)
def test_it():
    threading.Thread(target=EVENT.wait, daemon=True).start()
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*threads: +1.0 a call", "*10  Thread-N (wait)"])


def test_what_does_not_leak_passes(run):
    run("""
NUMBERS = itertools.count()

@functools.lru_cache(128)
def cached(number):
    return [number] * 100

@pytest.mark.no_leak
def test_a_plain_function():
    assert sum(range(1000)) == 499500

@pytest.mark.no_leak
def test_a_cache_that_fills_up_to_a_bound():
    cached(next(NUMBERS))

@pytest.mark.no_leak
def test_a_cycle():
    one = []
    one.append(one)

@pytest.mark.no_leak
@pytest.mark.parametrize("text", ["x", "y"])
def test_fixtures_and_parameters(text, tmp_path):
    (tmp_path / "file").write_text(text)

class TestMethods:
    @pytest.mark.no_leak
    def test_a_method(self):
        pass

@pytest.mark.no_leak(iterations=5, warm_up=1, tolerance_kb=1)
def test_arguments():
    pass
""").assert_outcomes(passed=7)


def test_what_pytest_keeps_for_its_report_is_no_leak(run):
    run("""
import logging, warnings

@pytest.mark.no_leak
def test_logs():
    logging.getLogger("x").warning("hello %s", "x" * 1000)

@pytest.mark.no_leak
def test_caplog(caplog):
    logging.getLogger("x").warning("hello")
    assert len(caplog.records) == 1

@pytest.mark.no_leak
def test_prints(capsys):
    print("x" * 1000)
    assert capsys.readouterr().out == "x" * 1000 + "\\n"

@pytest.mark.no_leak
def test_warns():
    warnings.warn("old", DeprecationWarning)
""").assert_outcomes(passed=4, warnings=1)


def test_a_failing_test_is_reported_as_itself(run):
    done = run("""
CALLS = itertools.count(1)

@pytest.mark.no_leak
def test_at_once():
    assert 1 == 2

@pytest.mark.no_leak
def test_later():
    assert next(CALLS) != 30

@pytest.mark.no_leak
def test_skipped():
    pytest.skip("not here")
""")
    done.assert_outcomes(failed=2, skipped=1)
    done.stdout.fnmatch_lines(
        [
            "E       assert 1 == 2",
            "E       assert 30 != 30",
            "E       in call 30 of a test that no_leak repeats",
        ]
    )
    done.stdout.no_fnmatch_line("*no_leak: memory grew*")
    done.stdout.no_fnmatch_line("*repeated_calls.py*")


def test_what_it_cannot_repeat_is_refused(run):
    done = run("""
import unittest

@pytest.mark.no_leak
async def test_coroutine():
    pass

class TestOld(unittest.TestCase):
    @pytest.mark.no_leak
    def test_it(self):
        pass
""")
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(
        [
            "no_leak cannot repeat a coroutine function: call asyncio.run(...) in a plain one",
            "no_leak is for test functions that pytest calls itself, and this one it does not",
        ]
    )


def test_arguments_are_checked(run):
    problems = {
        "3": "takes its arguments by name, got 3",
        "rounds=3": "takes iterations, warm_up, tolerance_kb, got 'rounds'",
        "iterations=4": "needs an int >= 5 as iterations, got 4",
        "warm_up=True": "needs an int >= 1 as warm_up, got True",
        "tolerance_kb='1'": "needs a number >= 0 as tolerance_kb, got '1'",
        "tolerance_kb=float('nan')": "needs a number >= 0 as tolerance_kb, got nan",
    }
    done = run(
        "".join(
            f"@pytest.mark.no_leak({arguments})\ndef test_{number}():\n    pass\n"
            for number, arguments in enumerate(problems)
        )
    )
    done.assert_outcomes(errors=len(problems))
    done.stdout.fnmatch_lines([f"no_leak {problem}" for problem in problems.values()])


def test_it_loads_nothing_where_the_marker_is_not_used(run):
    run("""
import sys

def test_it():
    loaded = {"numpy", "psutil", "memguard_native.integrations.repeated_calls"} & set(sys.modules)
    assert loaded == set()
""").assert_outcomes(passed=1)


def test_the_marker_is_known_once_it_is_installed(pytester):
    done = pytester.runpytest_subprocess("--markers", "--strict-markers")
    done.stdout.fnmatch_lines(["@pytest.mark.no_leak(iterations=50, warm_up=10, tolerance_kb=0):*"])
