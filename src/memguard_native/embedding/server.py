"""Runs the embedding application under the supervisor of `recycling`, until it is told to stop.

The port is bound before the model is loaded: a taken port fails at once, and clients that come
early wait to be accepted instead of being refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.loading import check_model
from memguard_native.embedding.models import default_served_name, locate_model, read_bert_spec
from memguard_native.embedding.workers import APPLICATION, pass_on
from memguard_native.recycling.service import run


def serve(
    config: EmbeddingConfig,
    *,
    host: str,
    port: int,
    announce: Callable[[str, int | None, str], object],
    **service: Any,
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code.

    `announce(name, dimensions, url)` is called once requests are answered; the dimensions are None
    where only the backend knows them. `service`: further arguments of `recycling.run`.

    Raises ConfigError, ModelError: the model cannot be found, or the backend cannot compute it.
    OSError: `host` and `port` cannot be bound.
    """
    location = locate_model(config.model, config.revision)
    check_model(config, location)
    is_numpy = config.backend == "numpy"
    name = config.served_name or default_served_name(location)
    dimensions = read_bert_spec(location.directory).hidden_size if is_numpy else None
    pass_on(config)
    return run(
        APPLICATION,
        factory=True,
        host=host,
        port=port,
        # Other backends start threads while they are loaded.
        start="auto" if is_numpy else "spawn",
        drain_timeout=config.drain_timeout,
        on_ready=lambda url: announce(name, dimensions, url),
        log_config=None,
        access_log=False,
        lifespan="on",
        **service,
    )
