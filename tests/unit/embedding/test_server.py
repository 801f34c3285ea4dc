"""`serve()`: what the supervisor is told, and what the workers that it starts make of it."""

from __future__ import annotations

import asyncio

import pytest

from memguard_native.breaker.breaker import CircuitBreaker
from memguard_native.embedding import app as app_module
from memguard_native.embedding import server, workers
from memguard_native.embedding import service as service_module
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Phase
from memguard_native.embedding.errors import BackendError, ModelError

from .fakes import FakeBackend, loaded
from .tiny import HIDDEN, config, make_tiny_model, write_json


@pytest.fixture
def ran(monkeypatch):
    """The arguments of `recycling.run`; the service that it stands for ends with code 7."""
    monkeypatch.setenv("MEMGUARD_EMBED_CONFIG", "untouched")  # put back afterwards
    calls = []

    def run(app, **arguments):
        calls.append({"app": app, **arguments})
        return 7

    monkeypatch.setattr(server, "run", run)
    return calls


def serve(config, announced=None, **service):
    announced = [] if announced is None else announced
    announce = lambda *told: announced.append(told)  # noqa: E731
    return server.serve(config, host="127.0.0.1", port=0, announce=announce, **service)


def test_its_exit_code_is_that_of_the_service(ran, tiny_model):
    assert serve(EmbeddingConfig(model=str(tiny_model))) == 7


def test_numpy_is_forked_where_that_is_safe_and_other_backends_are_spawned(ran, tiny_model):
    for backend in ("numpy", "sentence-transformers"):
        serve(EmbeddingConfig(model=str(tiny_model), backend=backend))
    assert [call["start"] for call in ran] == ["auto", "spawn"]


def test_policy_and_workers_go_to_the_supervisor(ran, tiny_model):
    policy = object()
    serve(EmbeddingConfig(model=str(tiny_model), drain_timeout=3.0), policy=policy, workers=2)
    (call,) = ran
    assert (call["policy"], call["workers"], call["drain_timeout"]) == (policy, 2, 3.0)
    assert (call["app"], call["factory"]) == ("memguard_native.embedding.workers:create", True)


def test_it_announces_name_and_dimensions_when_the_service_is_ready(ran, tiny_model):
    announced = []
    serve(EmbeddingConfig(model=str(tiny_model)), announced)
    serve(EmbeddingConfig(model=str(tiny_model), backend="sentence-transformers"), announced)
    assert announced == []
    for call in ran:
        call["on_ready"]("http://127.0.0.1:1")
    assert announced == [
        ("tiny", HIDDEN, "http://127.0.0.1:1"),
        ("tiny", None, "http://127.0.0.1:1"),
    ]


def test_a_model_that_cannot_be_computed_is_refused_before_anything_is_started(ran, tmp_path):
    directory = make_tiny_model(tmp_path)
    write_json(directory / "config.json", {**config(), "model_type": "roberta"})
    with pytest.raises(ModelError, match="roberta"):
        serve(EmbeddingConfig(model=str(directory)))
    assert ran == []


# --- the application of a worker ------------------------------------------------------------------


def test_a_worker_serves_the_configuration_that_was_passed_on(ran, tiny_model):
    serve(EmbeddingConfig(model=str(tiny_model), served_name="mine", aliases=("a", "b")))
    service = workers.create().state.service
    assert service.names == ["mine", "a", "b"]
    assert service.config.model == str(tiny_model)


def test_the_model_is_loaded_where_the_application_is_made(ran, tiny_model, monkeypatch):
    loads = []
    real = workers.load_model
    monkeypatch.setattr(workers, "load_model", lambda *told: loads.append(told) or real(*told))
    serve(EmbeddingConfig(model=str(tiny_model)))
    service = workers.create().state.service
    assert (len(loads), service.names) == (1, ["tiny"])


def test_other_backends_load_it_in_the_worker(ran, tiny_model, monkeypatch):
    monkeypatch.setattr(workers, "load_model", None)
    serve(EmbeddingConfig(model=str(tiny_model), backend="sentence-transformers"))
    assert workers.create().state.service.names == ["tiny"]


# --- as a worker of a supervisor ------------------------------------------------------------------


class Worker:
    """Stands for `recycling.worker` in a process that has a supervisor."""

    def __init__(self):
        self.asked = []
        self.read_load = None

    def is_supervised(self):
        return True

    def load_from(self, read):
        self.read_load = read

    def ask(self, reason):
        self.asked.append(reason)


@pytest.fixture
def supervised(monkeypatch):
    made = Worker()
    monkeypatch.setattr(app_module, "worker", made)
    monkeypatch.setattr(service_module, "worker", made)
    return made


def started(load):
    """The application's start-up; the phase when it was complete, and its load."""

    async def scenario():
        app = app_module.create_app(EmbeddingConfig(served_name="tiny"), load=load)
        async with app.router.lifespan_context(app):
            return app.state.service.phase

    return asyncio.run(scenario())


def test_start_up_ends_when_the_model_is_warm(supervised, tokenizer):
    assert started(loaded(FakeBackend(), tokenizer)) is Phase.ready


def test_the_load_of_the_workers_monitor_is_the_tokens_in_flight(supervised, tokenizer):
    started(loaded(FakeBackend(), tokenizer))
    assert supervised.read_load() == 0


def test_start_up_fails_if_the_model_does(supervised, tokenizer):
    def fail(rows):
        raise RuntimeError("out of order")

    with pytest.raises(BackendError, match="out of order"):
        started(loaded(FakeBackend(fail), tokenizer))


def test_an_open_breaker_asks_for_another_process(supervised):
    breaker = CircuitBreaker(
        "embed:test", on_event=service_module._ask_for_another, inline_events=True
    )
    breaker.trip()
    assert supervised.asked == ["backend"]
    breaker.reset()
    assert supervised.asked == ["backend"]
