"""A plugin for pytest: `@pytest.mark.no_leak` repeats a test and fails it if memory grows with it.

    @pytest.mark.no_leak
    def test_a_request_leaves_nothing_behind(client):
        client.get("/")

Arguments of the marker: `iterations` (calls in a batch, default 50, at least 5), `warm_up` (calls
before it is measured, default 10), `tolerance_kb` (KB that each call may leave behind, default 0).
What is a leak, and how many calls it takes, is told in `repeated_calls`: 110 calls of a test that
is clean, at most 1010. A cache must be full within the first 300, or `warm_up` says more.

Fixtures are set up once, for all calls; what a test keeps in them is memory that grows. Its
parameters are tested one by one. A coroutine function is refused, and so is a method of a
unittest.TestCase: pytest itself does not call them. Where the marker is not used nothing is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_DEFAULTS = {"iterations": 50, "warm_up": 10, "tolerance_kb": 0.0}
_CAPTURES = ("capsys", "capsysbinary", "capfd", "capfdbinary")
_LEAST = {"iterations": 5, "warm_up": 1, "tolerance_kb": 0}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "no_leak(iterations=50, warm_up=10, tolerance_kb=0): repeat the test and fail it if "
        "memory, file descriptors or threads grow with each repetition (memguard-native)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("no_leak")
    if marker is None:
        return
    problem = _problem_of(item) or _problem_of_arguments(marker)
    if problem is not None:
        pytest.fail(f"no_leak {problem}", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    marker = pyfuncitem.get_closest_marker("no_leak")
    if marker is None:
        return None  # pytest goes on as if we were not there
    from memguard_native.integrations.repeated_calls import find_leak

    leak = find_leak(_repeatable(pyfuncitem), **{**_DEFAULTS, **marker.kwargs})
    if leak is not None:
        pytest.fail(str(leak), pytrace=False)
    return True


def _problem_of(item: pytest.Item) -> str | None:
    import inspect
    import unittest

    if not isinstance(item, pytest.Function) or (
        item.cls is not None and issubclass(item.cls, unittest.TestCase)
    ):
        return "is for test functions that pytest calls itself, and this one it does not"
    if inspect.iscoroutinefunction(item.obj) or inspect.isasyncgenfunction(item.obj):
        return "cannot repeat a coroutine function: call asyncio.run(...) in a plain one"
    return None


def _problem_of_arguments(marker: pytest.Mark) -> str | None:
    if marker.args:
        return f"takes its arguments by name, got {marker.args[0]!r}"
    for name, value in marker.kwargs.items():
        if name not in _DEFAULTS:
            return f"takes {', '.join(_DEFAULTS)}, got {name!r}"
        kinds = (int, float) if name == "tolerance_kb" else int
        if not isinstance(value, kinds) or isinstance(value, bool) or not value >= _LEAST[name]:
            what = "a number" if name == "tolerance_kb" else "an int"
            return f"needs {what} >= {_LEAST[name]} as {name}, got {value!r}"
    return None


def _repeatable(item: pytest.Function) -> Callable[[], None]:
    import logging

    function = item.obj
    # What pytest itself calls the function with; all of `funcargs` would be too much.
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    # pytest keeps what is logged and printed, for its report and these fixtures. Each call begins
    # without: else the keeping would be what grows.
    keepers: list[Any] = [one for one in logging.getLogger().handlers if hasattr(one, "records")]
    captures: list[Any] = [item.funcargs[name] for name in _CAPTURES if name in item.funcargs]
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        for keeper in keepers:
            keeper.clear()
        for capture in captures:
            capture.readouterr()
        try:
            function(**arguments)
        except BaseException as error:
            if calls > 1:
                error.add_note(f"in call {calls} of a test that no_leak repeats")
            raise

    return call
