"""`memguard embed --workers 2`: its workers are replaced, and OpenAI's client does not notice.

The client never retries here: each failure would be seen.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
from contextlib import contextmanager

import numpy as np
import openai
import pytest

from memguard_native.embedding.models import locate_model

from .recycling.supervised import Service, service
from .servers import embed_process

pytestmark = pytest.mark.stress

HERE = os.path.dirname(__file__)
ROOT = os.path.dirname(os.path.dirname(HERE))
NAME = "all-MiniLM-L6-v2"
TEXTS = ["hello world", "another text", "the quick brown fox jumps over the lazy dog"]
CLIENTS = 4


@contextmanager
def embedding(directory, monkeypatch, *arguments):
    """The process, and the service as its supervisor tells of it."""
    monkeypatch.setenv("MEMGUARD_NAMESPACE", "test")
    with embed_process(directory, "--min-lifetime", "0s", *arguments) as running:
        one = Service(running.process, directory, directory / "stderr")
        one.url = running.url
        yield running, one


def vectors_of(client):
    response = client.embeddings.create(model=NAME, input=TEXTS)
    return np.array([entry.embedding for entry in response.data])


def pids(running):
    return {one["pid"] for one in running.workers("ready")}


def model_bytes():
    return (locate_model(None).directory / "model.safetensors").stat().st_size


class Load:
    """Clients that ask for the same vectors again and again, until they are told to end."""

    def __init__(self, running):
        self._running = running
        self._has_ended = False
        self._pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)

    def __enter__(self):
        self._work = [self._pool.submit(self._ask) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_):
        self._has_ended = True
        self._pool.shutdown()

    def _ask(self):
        found = []
        with self._running.client(max_retries=0) as client:
            while not self._has_ended:
                found.append(vectors_of(client))
        return found

    @property
    def answers(self):
        """All of them. Raises what any client has met."""
        return [vectors for work in self._work for vectors in work.result()]


def test_workers_are_replaced_under_load_and_vectors_stay_the_same(tmp_path, monkeypatch):
    with embedding(tmp_path, monkeypatch, "--workers", "2") as (running, supervised):
        with running.client(max_retries=0) as client:
            expected = vectors_of(client)
        with Load(running) as load:
            before = pids(supervised)
            for count in (2, 4):
                supervised.recycle()
                supervised.until(lambda count=count: len(supervised.recycles()) == count, 60.0)
        assert not pids(supervised) & before
        answers = load.answers
        assert len(answers) >= 20
        for vectors in answers:
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
        records = supervised.recycles()
        assert sum(record["handed_over"] for record in records) >= CLIENTS
        assert sum(record["aborted"] for record in records) == 0
        assert supervised.totals()["capacity_gap_seconds"] == 0
        with running.client(max_retries=0) as client:
            np.testing.assert_array_equal(vectors_of(client), expected)


def test_weights_are_in_memory_once(tmp_path, monkeypatch):
    with embedding(tmp_path, monkeypatch, "--workers", "2") as (_, supervised):
        workers = supervised.workers("ready")
        assert len(workers) == 2
        for worker in workers:
            assert worker["private_bytes"] > model_bytes(), "as the kernel shows it"
            assert worker["own_bytes"] < 0.4 * model_bytes()


def test_after_a_worker_was_killed_requests_are_answered_at_once(tmp_path, monkeypatch):
    with embedding(tmp_path, monkeypatch, "--workers", "2") as (running, supervised):
        before = pids(supervised)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        for _ in range(5):
            with running.client(max_retries=0) as client:
                assert vectors_of(client).shape == (3, 384)
        supervised.until(lambda: len(pids(supervised)) == 2 and victim not in pids(supervised))
        assert supervised.recycles()[0]["reason"] == "crash"


def test_tokens_that_were_computed_count(tmp_path, monkeypatch):
    with embedding(tmp_path, monkeypatch, "--max-tokens", "30", "--jitter", "0") as (one, told):
        with one.client(max_retries=0) as client:
            used = [
                client.embeddings.create(model=NAME, input=TEXTS).usage.total_tokens
                for _ in range(2)
            ]
            record = told.until(told.recycles)[0]
            assert vectors_of(client).shape == (3, 384)
        assert record["reason"] == "tokens"
        assert record["evidence"]["tokens"] == sum(used) >= 30
        assert record["evidence"]["inputs"] == 2 * len(TEXTS)


def test_a_worker_whose_breaker_opens_is_replaced_by_one_that_can_compute(tmp_path):
    broken = tmp_path / "broken"
    environment = {"APP_BROKEN_IF": str(broken), "APP_TOKENIZER": str(tmp_path)}
    arguments = {"app": "tests.integration.embedding_application:create", "factory": True}
    with service(
        tmp_path, path=ROOT, environment=environment, policy={"min_lifetime": 0.0}, **arguments
    ) as running:
        (old,) = pids(running)
        url = f"{running.url}/v1"
        with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            client.embeddings.create(model="tiny", input="hello")
            broken.write_text(str(old))
            codes = []
            running.until(lambda: codes.append(code_of(client)) or running.recycles())
            record = running.recycles()[0]
            assert (record["reason"], record["pid"]) == ("backend", old)
            errors = [code for code in codes if code is not None]
            assert set(errors) <= {"backend_error", "unavailable"}
            assert codes[: len(errors)] == errors, "the new worker has no error"
            assert code_of(client) is None


def code_of(client):
    """Of the error that a request is answered by."""
    try:
        client.embeddings.create(model="tiny", input="hello")
    except openai.InternalServerError as error:
        return error.code
    return None
