"""`MemoryMonitorMiddleware`: runs a memory monitor in an ASGI application, and feeds its load.

Pure ASGI: it wraps any application and needs no framework.

    app.add_middleware(MemoryMonitorMiddleware, monitor=monitor)  # FastAPI, Starlette
    app = MemoryMonitorMiddleware(app, monitor=monitor)           # anything else

The monitor is started when the application has started up, so that what start-up takes is not held
against it, and stopped when the application has shut down. Where there is no lifespan (the server
or the application does not know it) the first request starts the monitor, and the interpreter's end
stops it. A monitor that runs already is fed, and neither started nor stopped.

A request counts from its beginning to the end of the application's work on it, streaming and
background tasks included, however it ends; a WebSocket is one request as long as it is open.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from memguard_native.errors import ConfigError
from memguard_native.memory.load import Tracked
from memguard_native.memory.monitor import MemoryMonitor

logger = logging.getLogger("memguard_native.memory")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNITS = ("requests", "bytes")


class MemoryMonitorMiddleware:
    """The application `app`, with a `MemoryMonitor` that knows its load.

    Args:
        app: the ASGI application.
        monitor: the monitor to run and to feed; default a `MemoryMonitor` with its defaults. Give
            each process one only, and one middleware to each.
        unit: what the load counts. "requests": those in flight. "bytes": the bodies of those in
            flight, as far as the application has received them (of a WebSocket the newest message),
            and 1 for each request itself; better where bodies differ in size by much. What a
            client only announces does not count.

    Raises ConfigError: `app` cannot be called, another unit, not a monitor.
    """

    def __init__(
        self,
        app: Application,
        monitor: MemoryMonitor | None = None,
        unit: str = "requests",
    ) -> None:
        if not callable(app):
            raise ConfigError("app", app, "must be an ASGI application")
        if monitor is not None and not isinstance(monitor, MemoryMonitor):
            raise ConfigError("monitor", monitor, "must be a MemoryMonitor or None")
        if unit not in _UNITS:
            raise ConfigError("unit", unit, "must be one of 'requests', 'bytes'")
        self.app = app
        self.monitor = MemoryMonitor() if monitor is None else monitor
        self._requests = self.monitor.load.requests
        self._counts_bytes = unit == "bytes"
        self._is_started = False
        self._is_ours = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and count."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._following_lifespan(send))
        elif kind == "http" or kind == "websocket":
            if not self._is_started:
                self._start()
            begun = self._requests.begin()
            try:
                if self._counts_bytes:
                    await self._with_bodies(scope, receive, send)
                else:
                    await self.app(scope, receive, send)
            finally:
                self._requests.end(begun)
        else:
            await self.app(scope, receive, send)

    async def _with_bodies(self, scope: Scope, receive: Receive, send: Send) -> None:
        bodies = self.monitor.load.track(0.0)
        try:
            await self.app(scope, _counting(receive, bodies), send)
        finally:
            bodies.end()

    def _following_lifespan(self, send: Send) -> Send:
        async def follow(message: Message) -> None:
            kind = message["type"]
            if kind == "lifespan.startup.complete":
                self._start()
            elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self._stop()
            await send(message)

        return follow

    def _start(self) -> None:
        self._is_started = True
        if self.monitor.running:
            return
        try:
            self.monitor.start()
        except (OSError, RuntimeError):  # a service goes on without its monitor
            logger.exception("the memory monitor could not start")
        else:
            self._is_ours = True

    def _stop(self) -> None:
        # Waits for the monitor's thread: no longer than a callback of the user's takes.
        if self._is_ours:
            self.monitor.stop()
        self._is_started = self._is_ours = False


def _counting(receive: Receive, bodies: Tracked) -> Receive:
    """`receive`, with the bodies that pass counted as in flight."""
    newest = 0

    async def count() -> Message:
        nonlocal newest
        message = await receive()
        if message["type"] == "http.request":
            if body := message.get("body"):
                bodies.add(len(body))
        elif message["type"] == "websocket.receive":
            # The application may keep the one before, but has no need to.
            before, newest = newest, _size_of(message)
            bodies.add(newest - before)
        return message

    return count


def _size_of(message: Message) -> int:
    content = message.get("bytes")
    if content is None:
        content = message.get("text") or ""
    return len(content)
