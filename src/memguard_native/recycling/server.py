"""`RecyclingServer`: a uvicorn server that can be emptied without losing a request.

A server drains in one of two ways. "handover": idle connections are given away as they are, and
what runs is finished here and given away then. "linger": idle connections stay open and their next
answer says `Connection: close`; for TLS, HTTP/2 and protocols that are not known, whose state lies
in this process. Either way a deadline closes the rest, and what was still at work then is counted:
`aborted` stays 0 where nothing was lost.

The server is drained when no connection, no task and no adoption is left for three ticks of 10 ms;
then the application's lifespan is shut down, and `serve()` returns.

All of it runs on the event loop that `serve()` runs on. uvicorn's signal handlers, its supervisor
and its `limit_max_requests` are not used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

import uvicorn

from memguard_native.recycling.asgi import answering_close, counting_answers, is_health_route
from memguard_native.recycling.contract import broken_hooks
from memguard_native.recycling.handover import Closing, Handover, stop_accepting, take_in
from memguard_native.recycling.protocol import is_known, recycling_protocol

logger = logging.getLogger("memguard_native.recycling")

STARTUP_FAILURE = 3
"""The exit code of a server whose application did not start, as uvicorn's own."""

_QUIET_TICK = 0.01
_QUIET_TICKS = 3
_DATE_INTERVAL = 1.0
# A connection is seen only once its TLS handshake is done; one that takes longer is given up.
_HANDSHAKE = 3.0
# After the deadline: for what is closed to be flushed, and then for cancelled tasks to end.
_AFTER_DEADLINE = 1.0


class _Drain(NamedTuple):
    tier: str
    linger: float
    deadline: float


class RecyclingServer(uvicorn.Server):
    """Serves until `drain()` is called and all work is done or given away.

    Args:
        config: uvicorn's; its protocol class is replaced by a subclass when `serve()` loads it.
        hand_out: `hand_out(descriptor)` sends it to the next owner. True: it was sent, and ours is
            closed then. False: not now; it is tried again in 1 ms.
        on_startup: awaited after the application's start-up and before the first connection.
        on_started: called when connections are accepted.
        on_request: called after each answer that counts; health routes do not.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        hand_out: Callable[[int], bool],
        on_startup: Callable[[], Awaitable[None]],
        on_started: Callable[[], object] = lambda: None,
        on_request: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.tier = "linger"
        """What this server can do, "handover" or "linger"; known once `serve()` has loaded."""
        self.outlet: Handover | Closing | None = None
        """Where the protocols offer idle connections; None as long as these stay."""
        self.requests = 0
        self.handed_over = 0
        self.lingered = 0
        self.aborted = 0
        self.adopted = 0
        self._hand_out = hand_out
        self._on_startup = on_startup
        self._on_started = on_started
        self._on_request = on_request
        self._drained = asyncio.Event()
        self._asked: _Drain | None = None
        self._is_lingering = False
        self._timers: list[asyncio.Handle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting = 0
        self._accepted_at = 0.0

    @property
    def connections(self) -> int:
        """Open connections, WebSockets included."""
        return len(self.server_state.connections)

    @property
    def in_flight(self) -> int:
        """Calls of the application that have not returned: requests, WebSockets, their tails."""
        return len(self.server_state.tasks)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on `sockets`, which are closed when the drain begins; return when drained.

        Raises SystemExit(3): the application's start-up failed.
        """
        if not self.config.loaded:
            self.config.load()
        self._choose_protocol()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)
        if self._asked is not None:
            self._begin_drain(self._asked)
        await self.main_loop()
        await self.shutdown()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, warm it up, and only then take the listeners into the loop."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(STARTUP_FAILURE)
        try:
            await self._on_startup()
        except BaseException:
            await self.lifespan.shutdown()
            raise
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._new_protocol, sock=each, ssl=self.config.ssl, backlog=self.config.backlog
            )
            for each in sockets or ()
        ]
        self.started = True
        self._on_started()

    async def main_loop(self) -> None:
        """Keep the Date header true until the server is drained."""
        while not self._drained.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), _DATE_INTERVAL)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut the application's lifespan down; connections are gone by now."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self.lifespan.shutdown()

    # --- what the protocols tell -----------------------------------------------------------

    def connected(self, connection: Any) -> None:
        """A connection was accepted or adopted."""
        if self._is_lingering:
            # Its protocol may have been made before the drain.
            connection.app = self.config.loaded_app
            self.lingered += 1
        if self.outlet is not None:
            self.outlet.offer(connection)

    def answered(self, scope: Any) -> None:
        """The answer to a request is complete."""
        if not is_health_route(scope):
            self.requests += 1
            self._on_request()

    # --- connections of other workers ------------------------------------------------------

    def adopt(self, descriptor: int, accepted: Callable[[], None]) -> None:
        """Take over the connection with this descriptor, which is the server's from now on.

        `accepted()` is called before the first byte is read. Where it raises BlockingIOError, it is
        called again in 1 ms. Where it raises another OSError, or the server is drained already,
        nothing is read and this descriptor is closed: who holds another can give it to a third.
        """
        if self._drained.is_set():
            os.close(descriptor)
            return
        self._adopting += 1
        self._spawn(self._adopt(descriptor, accepted))

    async def _adopt(self, descriptor: int, accepted: Callable[[], None]) -> None:
        def make() -> Any:
            protocol = self._new_protocol()
            protocol.is_adopted = True
            return protocol

        try:
            await take_in(descriptor, accepted, make)
        except OSError as error:
            logger.warning("a connection of another worker was not taken over: %s", error)
        else:
            self.adopted += 1
        finally:
            self._adopting -= 1

    # --- the drain -------------------------------------------------------------------------

    def drain(self, *, tier: str, linger: float, deadline: float) -> None:
        """Stop accepting, and end when nothing is left.

        `tier`: "handover" or "linger"; a server that can only linger does.
        `linger`: seconds that idle connections are left open in the linger tier.
        `deadline`: time of the loop at which the rest is closed.

        May be called again, and before the server has started: the newest call holds.
        """
        is_first = self._asked is None
        self._asked = _Drain(tier, linger, deadline)
        if self.started:
            self._begin_drain(self._asked, is_first=is_first)

    def _begin_drain(self, asked: _Drain, *, is_first: bool = True) -> None:
        loop = asyncio.get_running_loop()
        for timer in self._timers:
            timer.cancel()
        self._timers = [loop.call_at(asked.deadline, self._close_rest)]
        if is_first:
            self._spawn(stop_accepting(self.servers))
            self._spawn(self._await_quiet())
        if "handover" == asked.tier == self.tier:
            self._set_outlet(Handover(loop, self._counted_hand_out))
        else:
            self._timers.append(loop.call_later(asked.linger, self._close_idle))
            self._begin_lingering()

    def _set_outlet(self, outlet: Handover | Closing | None) -> None:
        if self.outlet is not None:
            self.outlet.stop()
        self.outlet = outlet
        if outlet is not None:
            for connection in self._open_connections():
                if hasattr(connection, "is_idle"):
                    outlet.offer(connection)

    def _begin_lingering(self) -> None:
        self._set_outlet(None)
        if self._is_lingering:
            return
        self._is_lingering = True
        app: Any = self.config.loaded_app
        self.config.loaded_app = answering_close(app)
        for connection in self._open_connections():
            self.lingered += 1
            connection.app = self.config.loaded_app
            if hasattr(connection, "announce_close"):
                connection.announce_close()

    async def _await_quiet(self) -> None:
        quiet = 0
        while quiet < _QUIET_TICKS:
            await asyncio.sleep(_QUIET_TICK)
            quiet = 0 if self._is_busy() else quiet + 1
        self._drained.set()

    def _is_busy(self) -> bool:
        loop = asyncio.get_running_loop()
        return bool(
            self.server_state.connections
            or self.server_state.tasks
            or self._adopting
            or (self.config.ssl and loop.time() - self._accepted_at < _HANDSHAKE)
        )

    def _close_idle(self) -> None:
        """The time to linger is over: what is idle now, or will be, is closed."""
        self._set_outlet(Closing(asyncio.get_running_loop()))
        for connection in self._open_connections():
            if not hasattr(connection, "is_idle") and _is_http(connection):
                connection.shutdown()

    def _close_rest(self) -> None:
        """The deadline: nothing is left open."""
        for connection in self._open_connections():
            self.aborted += not getattr(connection, "is_idle", False)
            if _is_http(connection):
                connection.transport.close()
            else:
                connection.shutdown()  # a WebSocket's: close code 1012
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_AFTER_DEADLINE, self._cut))

    def _cut(self) -> None:
        """What did not go on being asked."""
        for connection in self._open_connections():
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_AFTER_DEADLINE, self._drained.set))

    # --- helpers ---------------------------------------------------------------------------

    def _choose_protocol(self) -> None:
        config = self.config
        base = config.http_protocol_class
        problems = broken_hooks(base) if is_known(base) else []
        if problems:
            logger.warning(
                "uvicorn %s has no %s: connections are not handed over; idle ones are answered "
                "with Connection: close before a worker ends",
                uvicorn.__version__,
                ", ".join(problems),
            )
        if problems or not is_known(base):
            app: Any = config.loaded_app
            config.loaded_app = counting_answers(app, self.answered)
            return
        config.http_protocol_class = recycling_protocol(base, self)
        if config.ssl is None:
            self.tier = "handover"

    def _new_protocol(self) -> Any:
        loop = asyncio.get_running_loop()
        self._accepted_at = loop.time()
        make: Any = self.config.http_protocol_class
        return make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )

    def _counted_hand_out(self, descriptor: int) -> bool:
        sent = self._hand_out(descriptor)
        self.handed_over += sent
        return sent

    def _open_connections(self) -> list[Any]:
        return list(self.server_state.connections)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds it weakly
        task.add_done_callback(self._tasks.discard)


def _is_http(connection: Any) -> bool:
    return hasattr(connection, "timeout_keep_alive_task")
