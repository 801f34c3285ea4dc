"""Runs the embedding application in this process under uvicorn, until it is told to stop.

The port is bound before the model is loaded: a taken port fails at once, and clients that come
early get a 503 instead of a refused connection.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
from collections.abc import Callable

import uvicorn

from memguard_native.embedding.app import create_app
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Phase
from memguard_native.embedding.service import EmbeddingService
from memguard_native.errors import ConfigError
from memguard_native.recycling.uvicorn import uvicorn_config

_LOG = logging.getLogger("memguard_native.embedding")
_BACKLOG = 2048


def serve(
    config: EmbeddingConfig, *, host: str, port: int, announce: Callable[[str, int, str], None]
) -> None:
    """Serve until SIGINT (KeyboardInterrupt) or SIGTERM.

    `announce(name, dimensions, url)` is called once requests are answered.
    Raises ConfigError, ModelError: see `create_app`. OSError: `host` and `port` cannot be bound.
    """

    def on_change(phase: Phase) -> None:
        if phase is Phase.ready:
            announce(service.name, service.dimensions, _url(listener))
        elif phase is Phase.failed:
            server.should_exit = True

    app = create_app(config, on_change=on_change)
    service = app.state.service
    assert isinstance(service, EmbeddingService)
    with _listen(host, port) as listener:
        options = uvicorn_config(
            app,
            limit_max_requests=None,  # nothing would start the server again
            workers=1,  # this process alone, whatever WEB_CONCURRENCY says to others
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(config.drain_timeout),
        )
        server = uvicorn.Server(uvicorn.Config(**options))
        server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError("port", port, "must be in 0..65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError("host", host, "must be an address of this machine") from error
    family, kind, _, _, address = found[0]
    # asyncio sets TCP_NODELAY only where it sees this protocol number; without it each request on a
    # kept connection takes 40 ms longer (uvicorn#3149).
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port} ({error.strerror})") from error
    if not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
        _LOG.warning("%s is reachable from other hosts, and there is no authentication", host)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
