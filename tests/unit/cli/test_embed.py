"""`memguard embed`: how its options become a configuration."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from memguard_native.cli.main import main
from memguard_native.embedding import server
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.recycling.policy import RecyclePolicy

from ..embedding.tiny import make_tiny_model

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture
def served(monkeypatch):
    """What the command would serve."""
    calls: list[tuple[EmbeddingConfig, dict[str, object]]] = []

    def serve(config: EmbeddingConfig, **options: object) -> int:
        calls.append((config, options))
        return 0

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    for name in (*THREADS, "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "untouched")
    return calls


def test_without_options_the_defaults_are_served_on_loopback(served):
    assert main(["embed"]) == 0
    config, options = served[0]
    assert config == EmbeddingConfig()
    assert (options["host"], options["port"]) == ("127.0.0.1", 7997)
    assert (options["workers"], options["policy"]) == (1, RecyclePolicy())


def test_every_option_reaches_the_configuration(served):
    arguments = (
        "--model org/name --revision v1 --backend sentence-transformers --served-name mine "
        "--alias a --alias b --host ::1 --port 0 --max-batch-tokens 1024 --max-queue-tokens 9999 "
        "--no-truncate --mapped-weights --compute-threads 3 --verbose"
    )
    assert main(["embed", *arguments.split()]) == 0
    config, options = served[0]
    assert config == EmbeddingConfig(
        model="org/name",
        revision="v1",
        backend="sentence-transformers",
        served_name="mine",
        aliases=("a", "b"),
        max_batch_tokens=1024,
        max_queue_tokens=9999,
        truncate=False,
        mapped_weights=True,
        compute_threads=3,
    )
    assert (options["host"], options["port"]) == ("::1", 0)


def test_its_workers_are_replaced_as_it_is_told(served, monkeypatch):
    monkeypatch.setenv("MEMGUARD_MAX_MEMORY", "512MiB")
    assert main(["embed", "--workers", "2", "--max-tokens", "1000", "--max-lifetime", "1h"]) == 0
    options = served[0][1]
    assert options["workers"] == 2
    assert options["policy"] == RecyclePolicy(
        max_tokens=1000, max_lifetime=3600.0, max_memory="512MiB"
    )


def test_the_number_of_workers_may_come_from_the_platform(served, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    main(["embed"])
    main(["embed", "--workers", "1"])
    assert [options["workers"] for _, options in served] == [3, 1]


def test_its_exit_code_is_that_of_the_service(served, monkeypatch):
    monkeypatch.setattr(server, "serve", lambda config, **options: 1)
    assert main(["embed"]) == 1


def test_compute_libraries_are_told_their_threads(served):
    main(["embed", "--compute-threads", "2"])
    assert [os.environ[name] for name in THREADS] == ["2"] * 3
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_it_announces_how_to_call_it(served, capsys):
    main(["embed"])
    served[0][1]["announce"]("m", 384, "http://127.0.0.1:1")
    out = capsys.readouterr().out
    assert out.startswith("Serving m (384 dimensions) at http://127.0.0.1:1/v1; try: curl ")
    assert out.count("\n") == 1


def test_dimensions_that_nobody_knows_yet_are_left_out(served, capsys):
    main(["embed"])
    served[0][1]["announce"]("m", None, "http://127.0.0.1:1")
    assert capsys.readouterr().out.startswith("Serving m at http://127.0.0.1:1/v1; try: curl ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--backend", "tensorflow"], "backend must be one of numpy, sentence-transformers"),
        (["--max-batch-tokens", "0"], "max_batch_tokens must be a whole number >= 1"),
        (["--compute-threads", "-1"], "compute_threads must be a whole number >= 1"),
        (["--revision", "v1"], "revision needs a Hugging Face id"),
        (["--alias", ""], "aliases must be non-empty"),
        (["--workers", "none"], "--workers must be a whole number"),
        (["--max-tokens", "0"], "--max-tokens must be a whole number >= 1"),
    ],
)
def test_a_wrong_value_is_one_sentence_and_exit_code_2(served, capsys, arguments, problem):
    assert main(["embed", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"memguard: {problem}")
    assert err.count("\n") == 1
    assert not served


@pytest.mark.parametrize("missing", ["tokenizers", "starlette", "uvicorn", "pydantic", "orjson"])
def test_a_missing_library_names_the_extra(tmp_path, missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from memguard_native.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    model = make_tiny_model(tmp_path / "model")
    arguments = ["embed", "--port", "0", "--model", str(model)]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'memguard-native[embed]'" in done.stderr
    assert "Traceback" not in done.stderr
