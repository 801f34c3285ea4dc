"""The servers of the group "recycle": each starts with its command, and what it does is seen."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest
from bench.recycle import app, runs, servers
from bench.recycle.lives import Life
from bench.recycle.load import Load

OTHERS = [kind for kind in {*servers.WITH_LIMIT, *servers.WITH_SIGNAL} if kind is not servers.OURS]
OTHERS.append(servers.UVICORN_WORKER_PRELOADED)


@pytest.mark.parametrize("kind", sorted(OTHERS, key=lambda kind: kind.name), ids=lambda k: k.name)
def test_server_answers_from_all_its_workers_and_is_gone_afterwards(kind: servers.Kind) -> None:
    with servers.running(kind, servers.Setting(cpu_turns=1000, model_mb=1)) as running:
        family = psutil.Process(running.process.process.pid).children(recursive=True)
        present = {life.pid for life in running.lives.present}
        run = runs.measured(running, Load(port=running.port, clients=16, requests=400))
    assert (run.result.failed, run.result.extra_connects, run.recycles) == (0, 0, 0)
    assert set(run.result.answered_by_pid) <= present
    assert len(present) == 2
    assert not any(member.is_running() for member in family)
    assert (run.shortage.below, run.shortage.none) == (0.0, 0.0)


def test_limit_of_requests_makes_an_end_that_is_seen() -> None:
    setting = servers.Setting(workers=1, max_requests=50)
    with servers.running(servers.HYPERCORN, setting) as running:
        run = runs.measured(running, Load(port=running.port, clients=2, requests=200))
    # The third may end after the last answer.
    assert run.recycles in (2, 3)
    assert run.result.requests == 200
    assert run.shortage.none == run.shortage.below > 0.0
    timeline = run.timeline()
    assert len(timeline.moments["replaced workers"]) == run.recycles
    assert len(timeline.moments["failed requests"]) == run.result.failed
    longest = max(value for value in timeline.values if value is not None)
    assert longest == pytest.approx(run.result.max * 1000, abs=0.01)


@pytest.mark.parametrize("kind", servers.WITH_LIMIT, ids=lambda kind: kind.name)
def test_every_server_has_the_same_limit_and_jitter(kind: servers.Kind) -> None:
    command = kind.command(1234, servers.Setting(workers=3, max_requests=300))
    assert "300" in command
    assert {"30", "0.1"} & set(command)
    assert command[command.index("--workers") + 1] == "3"


def test_work_of_a_request_is_measured_in_turns() -> None:
    assert servers.turns_of(10.0) == pytest.approx(10 * servers.turns_of(1.0), rel=0.5)


def test_model_is_built_once_and_has_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(app.MODEL_MB, "20")
    monkeypatch.setattr(app, "_model", [])
    before = psutil.Process().memory_full_info().uss
    assert app.preloaded() is app.app
    grown = psutil.Process().memory_full_info().uss - before
    assert grown == pytest.approx(20e6, rel=0.2)
    weights = app._model[0]
    app.load_model()
    assert app._model[0] is weights


# --- renewals ---------------------------------------------------------------------------------


class Stage:
    """A server of which the test says who is there."""

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []
        self.workers = 2
        self.lives = SimpleNamespace(present=[])
        self.process = SimpleNamespace(process=SimpleNamespace(send_signal=self.signals.append))

    def is_settled(self) -> bool:
        return len(self.lives.present) == self.workers

    def shows(self, *pids: int, ready_at: float = 10.0) -> None:
        self.lives.present = [Life(pid, ready_at, ready_at) for pid in pids]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    stage = Stage()
    renewals = servers.Renewals(stage)  # type: ignore[arg-type]
    now = [0.0]
    monkeypatch.setattr(servers.time, "monotonic", lambda: now[0])

    def step(*pids: int, at: float = 20.0, ready_at: float = 10.0) -> int:
        stage.shows(*pids, ready_at=ready_at)
        now[0] = at
        renewals.step()
        return len(stage.signals)

    return step


def test_server_is_asked_again_when_none_of_the_former_workers_is_left(
    step: Callable[..., int],
) -> None:
    assert step(1, 2) == 1
    assert step(1, 2) == 1
    assert step(1, 2, 3) == 1, "one more is there"
    assert step(2, 3) == 1, "one of the former is there"
    assert step(3, 4) == 2


def test_server_is_not_asked_where_a_worker_is_missing(step: Callable[..., int]) -> None:
    assert step(1) == 0
    assert step() == 0


def test_new_workers_have_a_rest(step: Callable[..., int]) -> None:
    assert step(1, 2, at=10.2, ready_at=10.0) == 0
    assert step(1, 2, at=10.4, ready_at=10.0) == 1
