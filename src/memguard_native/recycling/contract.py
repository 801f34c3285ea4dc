"""Whether the installed uvicorn has what handing connections over relies on.

Beyond names, the order of its hooks counts, and that they tell exactly when a connection is idle.
So a scripted exchange is run through the protocol as a server uses it: no socket, no event loop,
about 1 ms. Where the answer is not an empty list, a server does without handing over.

It is run once at the start of each worker and by the tests, on the oldest uvicorn that is supported
and on the newest.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from memguard_native.recycling.protocol import is_httptools, recycling_protocol

_REQUEST = b"POST / HTTP/1.1\r\nHost: contract\r\nContent-Length: 4\r\n\r\nbody"
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: contract\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Y29udHJhY3QgY29udHJhYw==\r\n\r\n"
)

_OF_PARSER: tuple[str, ...] = ("on_message_begin", "on_headers_complete", "on_message_complete")
_ANSWERED = "on_response_complete"
_METHODS = (
    "connection_made",
    "connection_lost",
    "data_received",
    _ANSWERED,
    "timeout_keep_alive_handler",
    "_unset_keepalive_if_required",
)
_PARAMETERS = ("config", "server_state", "app_state", "_loop")
_ATTRIBUTES = (
    "transport",
    "loop",
    "cycle",
    "scope",
    "timeout_keep_alive",
    "timeout_keep_alive_task",
)
_OF_CYCLE = ("response_started", "response_complete", "default_headers")
_OF_CONFIG = (
    "loaded",
    "load",
    "loaded_app",
    "lifespan_class",
    "http_protocol_class",
    "ssl",
    "backlog",
)
_OF_STATE = ("connections", "tasks", "default_headers")


def broken_hooks(base: type | None = None) -> list[str]:
    """Return what is missing or works otherwise than relied on; an empty list if all is there.

    `base`: a protocol derived from uvicorn's for httptools or h11; None: both, as far as installed.
    """
    if base is not None:
        return list(_problems(base))
    return [problem for each in _installed() for problem in _problems(each)]


def _installed() -> Iterator[type]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    yield H11Protocol
    if importlib.util.find_spec("httptools") is not None:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        yield HttpToolsProtocol


def _problems(base: type) -> Iterator[str]:
    config = uvicorn.Config(_application, http=base, log_config=None, ws="none", lifespan="off")
    try:
        config.load()
        yield from _missing(config, _OF_CONFIG)
        yield from _missing(ServerState(), _OF_STATE)
        yield from _missing(uvicorn.Server, ("on_tick",))
        methods = _METHODS + (_OF_PARSER if is_httptools(base) else ())
        missing = [*_missing(base, methods), *_missing_parameters(base)]
        yield from missing
        if not missing:
            yield from _Exchange(base, config).problems()
    except Exception as error:  # noqa: BLE001 - whatever a changed uvicorn raises is the answer
        yield f"{base.__qualname__} ({error!r})"


def _missing(owner: object, names: tuple[str, ...]) -> Iterator[str]:
    kind = owner if isinstance(owner, type) else type(owner)
    for name in names:
        if not hasattr(owner, name):
            yield f"{kind.__qualname__}.{name}"


def _missing_parameters(base: type) -> Iterator[str]:
    taken = inspect.signature(base).parameters
    for name in _PARAMETERS:
        if name not in taken:
            yield f"{base.__qualname__}({name}=)"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/":
        while (await receive()).get("more_body", False):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": _NO_BODY})
    await send({"type": "http.response.body"})


_NO_BODY = [(b"content-length", b"0")]


class _Exchange:
    """One connection after the other, each with its script."""

    def __init__(self, base: type, config: uvicorn.Config) -> None:
        self._base = base
        self._config = config
        self._parsed = list(_OF_PARSER) if is_httptools(base) else []

    def problems(self) -> Iterator[str]:
        message, answered = self._parsed, [_ANSWERED]
        head, body = _REQUEST[:-4], _REQUEST[-4:]
        early = head.replace(b"POST /", b"POST /early")
        scripts: dict[str, list[tuple[bytes | None, list[str], bool]]] = {
            # What arrives, or None for the application's turn; the hooks then; idle after it.
            "plain": [
                (b"", [], True),
                (_REQUEST[:5], message[:1], False),
                (head[5:], message[1:2], False),
                (body, message[2:], False),
                (None, answered, True),
            ],
            "pipelined": [
                (_REQUEST + _REQUEST, message * 2, False),
                (None, answered * 2, True),
            ],
            "early answer": [
                (early, message[:2], False),
                (None, answered, False),
                (body, message[2:], True),
                (_REQUEST, message, False),
                (None, answered, True),
            ],
        }
        for name, script in scripts.items():
            yield from self._problem(name, script)
        yield from self._upgrade()

    def _problem(
        self, name: str, script: list[tuple[bytes | None, list[str], bool]]
    ) -> Iterator[str]:
        connection = _Connection(self._base, self._config, [*self._parsed, _ANSWERED])
        yield from _missing(connection.protocol, _ATTRIBUTES)
        for data, hooks, is_idle in script:
            happened = connection.step(data)
            if (happened, connection.protocol.is_idle) != (hooks, is_idle):
                connection.close()
                yield (
                    f"{self._base.__qualname__} as expected ({name}: {happened}, "
                    f"idle {connection.protocol.is_idle}, not {hooks}, idle {is_idle})"
                )
                return
        yield from _missing(connection.protocol.cycle, _OF_CYCLE)
        if connection.protocol.timeout_keep_alive_task is None:
            yield f"{self._base.__qualname__}.timeout_keep_alive_task ({name}: not set)"

    def _upgrade(self) -> Iterator[str]:
        seen: list[str] = []

        class WebSocket:
            def __init__(self, **options: Any) -> None:
                pass

            def connection_made(self, transport: Any) -> None:
                seen.append("connection_made")

            def data_received(self, data: bytes) -> None:
                seen.append("data_received")

        before = self._config.ws_protocol_class
        self._config.ws_protocol_class = WebSocket  # type: ignore[assignment]
        try:
            connection = _Connection(self._base, self._config, [])
            connection.step(_UPGRADE)
            connection.close()
        finally:
            self._config.ws_protocol_class = before
        replaced = isinstance(connection.transport.protocol, WebSocket)
        if not replaced or seen != ["connection_made", "data_received"]:
            yield f"{self._base.__qualname__} as expected (upgrade: {seen})"


class _Connection:
    """A protocol between a transport and a loop that do nothing, and what its hooks told."""

    outlet = None

    def __init__(self, base: type, config: uvicorn.Config, hooks: list[str]) -> None:
        self._happened: list[str] = []
        self._loop = _Loop()
        self.transport = _Transport()
        recorded = type("Recorded", (recycling_protocol(base, self),), {})  # type: ignore[arg-type]
        for name in hooks:
            setattr(recorded, name, self._recorder(name, getattr(recorded, name)))
        self.protocol: Any = recorded(
            config=config, server_state=ServerState(), app_state={}, _loop=self._loop
        )
        self.protocol.access_log = False
        self.protocol.connection_made(self.transport)

    def step(self, data: bytes | None) -> list[str]:
        """Feed `data`, or let the application work; return the hooks that were called."""
        self._happened.clear()
        if data is None:
            self._loop.run()
        elif data:
            self.protocol.data_received(data)
        return list(self._happened)

    def close(self) -> None:
        """Leave undone what the application has not begun."""
        self._loop.close()

    def connected(self, connection: object) -> None:
        """As a server."""

    def answered(self, scope: object) -> None:
        """As a server."""

    def _recorder(self, name: str, hook: Callable[..., None]) -> Callable[..., None]:
        def record(*arguments: Any) -> None:
            self._happened.append(name)
            hook(*arguments)

        return record


class _Transport:
    protocol: object = None

    def get_extra_info(self, name: str, default: object = None) -> None:
        return None

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        """To nobody."""

    pause_reading = resume_reading = close = lambda self: None


class _Loop:
    """Runs what is ready; the application of the script never waits."""

    def __init__(self) -> None:
        self._ready: list[Coroutine[Any, Any, None]] = []

    def create_task(self, work: Coroutine[Any, Any, None], **options: Any) -> _Task:
        self._ready.append(work)
        return _Task()

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> _Task:
        return _Task()

    def run(self) -> None:
        while self._ready:
            work = self._ready.pop(0)
            try:
                work.send(None)
            except StopIteration:
                continue
            work.close()
            raise RuntimeError("the application was made to wait")

    def close(self) -> None:
        for work in self._ready:
            work.close()


class _Task:
    def add_done_callback(self, callback: Callable[..., object]) -> None:
        """Never done."""

    def cancel(self) -> None:
        """Never called."""
