"""The suites of the group "shared": what they declare, how they judge, what they leave behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from bench.harness import Bench, Effort
from bench.suites import (
    shared_arguments,
    shared_call,
    shared_processes,
    shared_rivals,
    shared_seen,
)

from bench import callers, native, redis_server, report, segments, servers, suites
from memguard_native import State

TINY = Effort(rounds=5, seconds=0.5, quick=True)


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def compiled(name: str) -> Iterator[str]:
        yield name

    monkeypatch.setattr(native, "compiled", compiled)


def met(b: Bench) -> list[bool]:
    return [report.gate_report(budget, [b])["met"] for budget in b.budgets]


def test_group_has_a_suite_per_question() -> None:
    assert [suite.name for suite in suites.select(["shared"])] == [
        "shared_call",
        "shared_arguments",
        "shared_seen",
        "shared_processes",
        "shared_rivals",
    ]


@pytest.mark.parametrize(("shared_ns", "is_met"), [(20.5, True), (21.5, False)])
@pytest.mark.parametrize("suite", [shared_call, shared_arguments], ids=lambda one: one.__name__)
def test_shared_guard_is_judged_by_the_local_one(
    suite: ModuleType, shared_ns: float, is_met: bool
) -> None:
    b = Bench(TINY)
    suite.suite(b)
    b.run()
    assert all(b.summary(name) for name in b.cases)
    b.samples["ns"] = {"bare call": [10.0], suite.LOCAL: [20.0], suite.SHARED: [shared_ns]}
    assert met(b) == [is_met]


@pytest.mark.parametrize(("median_ns", "is_met"), [(999.0, True), (1001.0, False)])
def test_sight_of_a_trip_is_judged_by_its_median(
    no_programs: None, monkeypatch: pytest.MonkeyPatch, median_ns: float, is_met: bool
) -> None:
    found = {"word": 80.0, "trip": 160.0, "fifth": median_ns, "failures": 2500.0}
    monkeypatch.setattr(native, "numbers", lambda _, what, rounds: [40.0, found[what], 9000.0])
    monkeypatch.setattr(shared_seen, "PAUSE_S", 0.0)
    b = Bench(TINY)
    shared_seen.suite(b)
    assert met(b) == [True, is_met]


@pytest.mark.parametrize(("together", "is_met"), [(9.1, True), (8.9, False)])
def test_two_processes_are_judged_by_what_each_has_alone(
    no_programs: None, monkeypatch: pytest.MonkeyPatch, together: float, is_met: bool
) -> None:
    monkeypatch.setattr(native, "numbers", lambda *_: [10.0, together] * 40)
    monkeypatch.setattr(shared_processes, "_in_python", lambda *_: ([1.0] * 9, [1.0] * 9))
    b = Bench(TINY)
    shared_processes.suite(b)
    assert met(b) == [is_met]


def test_redis_runs_as_long_as_its_suite() -> None:
    b = Bench(TINY)
    shared_rivals.suite(b)
    assert redis_processes() == 1
    b.run()
    assert redis_processes() == 0
    assert all(b.summary(name) for name in b.cases)
    assert [budget.limit() for budget in b.budgets] == ["<= 1/1000"] * 2


def redis_processes() -> int:
    children = psutil.Process().children(recursive=True)
    return sum(redis_server.EXECUTABLE in child.name() for child in children)


def test_missing_redis_server_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.shutil, "which", lambda _: None)
    b = Bench(TINY)
    shared_rivals.suite(b)
    assert b.cases["pybreaker with Redis"].absent == "not installed: redis-server"
    assert met(b) == [False, False]
    why = report.gate_report(b.budgets[1], [b])["why"]
    assert why == "pybreaker with Redis is not installed: redis-server"


# --- breakers and callers -------------------------------------------------------------------


def test_breakers_have_names_of_their_own_and_are_found_by_them() -> None:
    one, other = segments.breaker(), segments.breaker()
    segments.shared(one.name, segments.NAMESPACE).trip()
    assert (one.state, other.state) == (State.open, State.closed)


def test_file_of_the_breakers_ends_with_their_process(segment_directory: Path) -> None:
    program = "from bench import segments; segments.breaker().trip()"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, check=True)
    assert "was replaced or removed" not in done.stderr
    assert list(segment_directory.iterdir()) == []


def test_breaker_that_is_not_shared_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGUARD_DIR", "/proc/no-such-directory")
    with pytest.raises(RuntimeError, match="no memory that processes share"):
        segments.breaker()


def test_callers_call_when_they_are_told_and_are_gone_afterwards() -> None:
    with callers.running(2, segments.breaker().name, segments.NAMESPACE) as both:
        assert callers.million_calls_per_s_of_each(both, 100) > 0.0
        assert callers.million_calls_per_s_of_each(both[:1], 100) > 0.0
        pids = [caller.pid for caller in both]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_caller_that_ended_is_an_error() -> None:
    with callers.running(1, segments.breaker().name, segments.NAMESPACE) as (caller,):
        psutil.Process(caller.pid).kill()
        with pytest.raises(callers.CallersError, match="a caller ended with -9"):
            caller.answer()
