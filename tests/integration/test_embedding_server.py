"""`memguard embed` as users meet it: a real process, the real model, OpenAI's own client.

The default model is installed by `make .venv/.stamps/model`; without it the server does not start,
and these tests fail with its message.
"""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import openai
import pytest

from memguard_native.embedding.models import locate_model
from memguard_native.embedding.tokenize import Tokenizer

from .servers import EmbedProcess, embed_process

NAME = "all-MiniLM-L6-v2"
ALIAS = f"sentence-transformers/{NAME}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with embed_process(tmp_path_factory.mktemp("embed")) as running:
        yield running


@pytest.fixture
def client(server: EmbedProcess):
    with server.client() as made:
        yield made


class Tries(list[httpx.Request]):
    """A client that records every request it sends, retries included."""

    def client(self, server: EmbedProcess) -> openai.OpenAI:
        hooks = {"request": [self.append]}
        return server.client(http_client=openai.DefaultHttpxClient(event_hooks=hooks))


def vectors_of(response) -> np.ndarray:
    return np.array([entry.embedding for entry in response.data])


def test_it_announces_itself_in_one_line_that_can_be_pasted(server):
    assert server.announcement.startswith(f"Serving {NAME} (384 dimensions) at {server.url}/v1")
    pasted = server.announcement.partition("try: ")[2]
    done = subprocess.run(
        ["bash", "-c", f"{pasted.strip()} --silent"], capture_output=True, check=True
    )
    assert len(json.loads(done.stdout)["data"][0]["embedding"]) == 384


def test_the_clients_default_call_returns_unit_vectors(client):
    response = client.embeddings.create(model=NAME, input=["hello world", "another text"])
    vectors = vectors_of(response)
    assert vectors.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert (response.object, response.model) == ("list", NAME)


def test_base64_and_float_are_the_same_numbers(client):
    default = client.embeddings.create(model=NAME, input="hello world")
    plain = client.embeddings.create(model=NAME, input="hello world", encoding_format="float")
    encoded = client.embeddings.create(model=NAME, input="hello world", encoding_format="base64")
    assert isinstance(encoded.data[0].embedding, str)
    np.testing.assert_array_equal(
        vectors_of(default).astype(np.float32), vectors_of(plain).astype(np.float32)
    )


def test_dimensions_cut_and_normalise(client):
    whole = vectors_of(client.embeddings.create(model=NAME, input="hello world"))[0]
    short = vectors_of(client.embeddings.create(model=NAME, input="hello world", dimensions=64))[0]
    np.testing.assert_allclose(short, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


def test_usage_counts_special_tokens_and_no_padding(client):
    response = client.embeddings.create(model=NAME, input=["hello world", "a b c d e"])
    assert response.usage.prompt_tokens == response.usage.total_tokens == (2 + 2) + (5 + 2)


@pytest.mark.parametrize("count", [1, 33, 2048])
def test_batches_keep_their_order(client, count):
    texts = [f"number {i}" for i in range(count)]
    response = client.embeddings.create(model=NAME, input=texts)
    assert [entry.index for entry in response.data] == list(range(count))
    last = client.embeddings.create(model=NAME, input=texts[-1])
    np.testing.assert_allclose(vectors_of(response)[-1], vectors_of(last)[0], atol=1e-6)


def test_token_arrays_equal_their_text(client):
    tokenizer = Tokenizer(locate_model(None).directory, 256)
    texts = ["hello world", "the quick brown fox"]
    ids = [row.ids.tolist() for row in tokenizer.encode_texts(texts)]
    from_texts = vectors_of(client.embeddings.create(model=NAME, input=texts))
    complete = vectors_of(client.embeddings.create(model=NAME, input=ids))
    bare = vectors_of(client.embeddings.create(model=NAME, input=[row[1:-1] for row in ids]))
    np.testing.assert_allclose(complete, from_texts, atol=1e-6)
    np.testing.assert_allclose(bare, from_texts, atol=1e-6)
    one = vectors_of(client.embeddings.create(model=NAME, input=ids[0]))
    np.testing.assert_allclose(one, from_texts[:1], atol=1e-6)


def test_long_texts_are_cut_and_counted(client):
    raw = client.embeddings.with_raw_response.create(model=NAME, input=["word " * 1000, "short"])
    assert raw.headers["x-memguard-truncated"] == "1"
    response = raw.parse()
    assert response.usage.prompt_tokens == 256 + 3
    cut = client.embeddings.create(model=NAME, input="word " * 254)
    np.testing.assert_allclose(vectors_of(response)[0], vectors_of(cut)[0], atol=1e-6)


def test_the_model_is_listed_and_found_by_both_names(client):
    assert [model.id for model in client.models.list()] == [NAME, ALIAS]
    assert client.models.retrieve(NAME).id == NAME
    assert client.models.retrieve(ALIAS).id == ALIAS
    assert client.embeddings.create(model=ALIAS, input="a").model == NAME


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        ({"model": "other", "input": "a"}, openai.NotFoundError, "model_not_found"),
        ({"model": NAME, "input": ""}, openai.BadRequestError, "empty_input"),
        ({"model": NAME, "input": []}, openai.BadRequestError, "empty_input"),
        ({"model": NAME, "input": 7}, openai.BadRequestError, "invalid_value"),
        ({"model": NAME, "input": [30_522]}, openai.BadRequestError, "invalid_value"),
        ({"model": NAME, "input": "a", "dimensions": 385}, openai.BadRequestError, "invalid_value"),
        ({"model": NAME, "input": "a", "dimensions": 0}, openai.BadRequestError, "invalid_value"),
        ({"model": NAME, "input": ["a"] * 2049}, openai.APIStatusError, "request_too_large"),
        ({"model": NAME, "input": "a" * (9 << 20)}, openai.APIStatusError, "request_too_large"),
    ],
)
def test_the_client_does_not_retry_what_cannot_succeed(server, arguments, error, code):
    tries = Tries()
    with tries.client(server) as client, pytest.raises(error) as caught:
        client.embeddings.create(**arguments)
    assert caught.value.code == code
    assert len(tries) == 1


def test_bad_json_is_refused_in_openais_shape(server):
    response = httpx.post(f"{server.url}/v1/embeddings", content=b"{nonsense")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_value"


def test_concurrent_clients_get_the_vectors_they_asked_for(server, client):
    texts = [f"text {i} " + "and more " * (i % 9) for i in range(64)]
    expected = vectors_of(client.embeddings.create(model=NAME, input=texts))

    def ask(text: str) -> np.ndarray:
        return vectors_of(client.embeddings.create(model=NAME, input=text))[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, texts))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_single_text_is_answered_while_a_bulk_request_is_computed(server, client):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(client.embeddings.create, model=NAME, input=["some words"] * 2048)
        while not bulk.done():
            client.embeddings.create(model=NAME, input="single")
            if not bulk.done():
                break  # answered beside it
        else:
            raise AssertionError("the single text was answered after the bulk request only")
        assert len(bulk.result(60).data) == 2048


def test_it_is_ready_and_healthy(server):
    for route in ("/health", "/healthz", "/ready", "/readyz"):
        assert httpx.get(server.url + route).status_code == 200


def test_overload_is_answered_with_200_and_429_only_and_never_for_long(tmp_path):
    with embed_process(tmp_path, "--max-queue-tokens", "2048") as small:

        def ask(number: int) -> tuple[int, int]:
            body = {"model": NAME, "input": [f"text {number} {i}" for i in range(30)]}
            response = httpx.post(f"{small.url}/v1/embeddings", json=body, timeout=60)
            assert "retry-after" not in response.headers
            return response.status_code, int(response.headers.get("retry-after-ms", 25))

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(64)))
    assert {status for status, _ in answers} == {200, 429}
    assert all(25 <= wait <= 2000 for _, wait in answers)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(tmp_path, sent):
    with embed_process(tmp_path) as running:
        running.process.send_signal(sent)
        assert running.process.wait(20) == 0
    log = (tmp_path / "stderr").read_text()
    assert f"{NAME}: stopped" in log
    assert "Traceback" not in log


def run_embed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memguard_native", "embed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_taken_port_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_embed("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--host", "no.such.host.invalid"], "host must be an address of this machine"),
        (["--port", "70000"], "port must be in 0..65535"),
        (["--model", "./missing"], "model must be a directory or a Hugging Face id"),
    ],
)
def test_what_cannot_be_served_exits_with_2_and_one_sentence(arguments, problem):
    done = run_embed("--port", "0", *arguments)
    assert done.returncode == 2
    assert f"memguard: {problem}" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_password_another_host_is_warned_of(tmp_path):
    with embed_process(tmp_path, "--host", "0.0.0.0"):
        pass
    assert (
        "reachable from other hosts, and there is no authentication"
        in (tmp_path / "stderr").read_text()
    )
