"""`memguard embed`: serve a sentence-embedding model over OpenAI's HTTP interface."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from typing import TYPE_CHECKING

from memguard_native.cli.serve_settings import (
    POLICY,
    REPLACEMENT,
    WORKERS,
    look_at_web_concurrency,
)
from memguard_native.cli.settings import SettingsFormatter, add_settings, read_settings

if TYPE_CHECKING:
    from memguard_native.embedding.config import EmbeddingConfig

_INSTALL = "pip install 'memguard-native[embed]'"
_OF_WORKERS = ("tokenizers", "uvicorn")
"""What only the workers import; that it is missing is to be told before there are any."""


class _Formatter(SettingsFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Those of `serve` tell their defaults themselves."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "embed",
        help="serve an embedding model to OpenAI's clients",
        usage="memguard embed [OPTIONS]",
        description="Serve an embedding model over OpenAI's HTTP interface (POST /v1/embeddings), "
        "with its memory watched and its backend behind a circuit breaker.",
        epilog="Each option of the last two groups has an environment variable, as with `memguard "
        "serve`: --max-memory is MEMGUARD_MAX_MEMORY.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", metavar="PATH|ID", help="directory or Hugging Face id (default: MiniLM)")
    add("--revision", metavar="R", help="branch, tag or commit of a Hugging Face id")
    add("--backend", default="numpy", help="numpy or sentence-transformers")
    add("--served-name", metavar="N", help="the model's name for clients (default: from --model)")
    add("--alias", metavar="N", action="append", default=[], help="one more name; repeatable")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=7997, help="port to listen on; 0 lets the system choose")
    add("--max-batch-tokens", metavar="N", type=int, help="padded tokens computed at once")
    add("--max-queue-tokens", metavar="N", type=int, help="padded tokens that may wait")
    add("--no-truncate", action="store_true", help="refuse inputs that are too long")
    add("--mapped-weights", action="store_true", help="compute on the mapped file (less memory)")
    add("--compute-threads", metavar="N", type=int, default=1, help="threads that compute")
    add_settings(parser, "workers", [WORKERS])
    add_settings(parser, *REPLACEMENT)
    add("-v", "--verbose", action="store_true", help="log more, and show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Raises ConfigError, ModelError, OSError."""
    # Before numpy is imported, which reads them once. More threads than cores left by the others
    # collapse: OpenBLAS waits by spinning.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.compute_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    config = _config(options)
    given = read_settings([WORKERS, *POLICY], options, os.environ)
    look_at_web_concurrency(given, os.environ)
    try:
        for name in _OF_WORKERS:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
        from memguard_native.embedding.server import serve
        from memguard_native.recycling.policy import RecyclePolicy

        with given.named():
            return serve(
                config,
                host=options.host,
                port=options.port,
                announce=_announce,
                policy=RecyclePolicy(**given.pick(POLICY)),
                workers=given.values.get("workers", 1),
            )
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("memguard_native"):
            raise
        raise ModuleNotFoundError(f"{error.name} is missing; run `{_INSTALL}`") from error


def _config(options: argparse.Namespace) -> EmbeddingConfig:
    from memguard_native.embedding.config import EmbeddingConfig

    return EmbeddingConfig(
        model=options.model,
        revision=options.revision,
        backend=options.backend,
        served_name=options.served_name,
        aliases=tuple(options.alias),
        truncate=not options.no_truncate,
        mapped_weights=options.mapped_weights,
        compute_threads=options.compute_threads,
        max_batch_tokens=options.max_batch_tokens,
        max_queue_tokens=options.max_queue_tokens,
    )


def _announce(name: str, dimensions: int | None, url: str) -> None:
    body = f'{{"model": "{name}", "input": "hello"}}'
    size = "" if dimensions is None else f" ({dimensions} dimensions)"
    print(
        f"Serving {name}{size} at {url}/v1; try: "
        f"curl {url}/v1/embeddings -H 'Content-Type: application/json' -d '{body}'",
        flush=True,
    )
