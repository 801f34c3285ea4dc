from __future__ import annotations

import itertools

import pytest

from memguard_native import CircuitBreaker
from memguard_native._core import ManualClock
from memguard_native.breaker import host

# Rules that hold in any scope. What tests make without a scope is then in shared memory.
ANY_SCOPE = {
    "test_attempt",
    "test_by_hand",
    "test_configure",
    "test_coroutine",
    "test_event_log",
    "test_events",
    "test_generators",
    "test_guard",
    "test_open_error",
    "test_outcome",
    "test_probing",
    "test_rates",
    "test_reopen",
    "test_rules",
    "test_snapshot",
    "test_trip_rules",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in ANY_SCOPE:
        metafunc.fixturenames.append("any_scope")
        metafunc.parametrize("any_scope", ["local", "host"], indirect=True)


@pytest.fixture
def any_scope(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether breakers without a scope lie in this process's memory or in a segment.

    Each has a place of its own there, as breakers of one name have in scope "local".
    """
    if request.param == "host":
        numbers = itertools.count()
        monkeypatch.setattr(
            host,
            "place_for",
            lambda config: host.place_of(str(number := next(numbers)), f"any-{number // 60}"),
        )
    return request.param


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=1000.0)


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    """The original's defaults: 5 failures, 60 seconds."""
    return CircuitBreaker("search", clock=clock)
