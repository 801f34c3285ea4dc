"""What the workers of `memguard embed` serve.

Made where the application is loaded: in the template that is forked, so that weights and tokenizer
are in memory once for all workers, or in each worker that is spawned. The configuration comes
through the environment, because workers know the application by its import string alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from memguard_native.embedding.app import create_app
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.loading import load_model
from memguard_native.embedding.models import default_served_name, locate_model

if TYPE_CHECKING:
    from starlette.applications import Starlette

_VARIABLE = "MEMGUARD_EMBED_CONFIG"
APPLICATION = "memguard_native.embedding.workers:create"


def pass_on(config: EmbeddingConfig) -> None:
    """The processes that this one starts serve this."""
    os.environ[_VARIABLE] = json.dumps(asdict(config))


def create() -> Starlette:
    """The application of a worker. Raises ModelError: the model cannot be loaded."""
    values = json.loads(os.environ[_VARIABLE])
    config = EmbeddingConfig(**{**values, "aliases": tuple(values["aliases"])})
    if config.backend != "numpy":
        return create_app(config)  # with threads of its own, which begin in the worker
    location = locate_model(config.model, config.revision)
    model = load_model(config, location)
    named = replace(
        config,
        served_name=config.served_name or default_served_name(location),
        aliases=(*(() if config.served_name else location.aliases), *config.aliases),
    )
    return create_app(named, load=lambda: model)
