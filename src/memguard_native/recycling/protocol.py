"""uvicorn's HTTP/1.1 protocols, which tell when a connection is idle and a request is answered.

A connection is idle when nothing of a request or of an answer is in this process, neither with the
parser nor with the application. That must be exact: a connection that is handed over with half a
request in our parser has lost that half.

- httptools: every message that has begun is received to its end and answered. An early answer to a
  body that is still coming, and headers that are half sent, both leave a message open.
- h11: both sides are idle and the parser holds no bytes back (headers that are half sent leave
  both sides idle).

The timer of a kept connection is always cancelled with its connection. uvicorn forgets that where
the connection ends with an error, and the timer then keeps the last request alive until it fires.

uvicorn is neither copied nor changed: these are subclasses, made for one server.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from memguard_native.recycling.asgi import CLOSE

if TYPE_CHECKING:
    from memguard_native.recycling.server import RecyclingServer

_HTTPTOOLS = "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol"
_H11 = "uvicorn.protocols.http.h11_impl.H11Protocol"


def is_httptools(base: type) -> bool:
    """Whether `base` is uvicorn's protocol for httptools, or derived from it."""
    return _HTTPTOOLS in _names(base)


def is_known(base: type) -> bool:
    """Whether connections of the protocol `base` can be handed over."""
    return is_httptools(base) or _H11 in _names(base)


def recycling_protocol(base: type, server: RecyclingServer) -> type:
    """Return a subclass of `base` that works for `server`; `base` itself where it is not known."""
    if is_httptools(base):
        return _httptools_protocol(_common_protocol(base, server), server)
    if is_known(base):
        return _h11_protocol(_common_protocol(base, server), server)
    return base


def _names(base: type) -> set[str]:
    # By name: httptools need not be installed.
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in base.__mro__}


def _common_protocol(base: Any, server: RecyclingServer) -> Any:
    class CommonProtocol(base):  # type: ignore[misc]
        is_adopted = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self.is_adopted:
                # uvicorn starts it after an answer only, and this connection may never ask again.
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            server.connected(self)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.forget_timer()

        def forget_timer(self) -> None:
            self._unset_keepalive_if_required()

        def announce_close(self) -> None:
            """Have the answer that is being worked on say `Connection: close`, if it can."""
            # Of requests in a pipeline it is the last one's.
            if self.cycle is not None and not self.cycle.response_started:
                self.cycle.default_headers = [*self.cycle.default_headers, CLOSE]

    return CommonProtocol


def _httptools_protocol(base: Any, server: RecyclingServer) -> type:
    class RecyclingHttpToolsProtocol(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            # One per message that has begun. Answers come in the order of the requests, so the
            # first is the one that is answered next; `self.scope` may be a later one's.
            self._unanswered: deque[dict[str, Any]] = deque()
            self._is_receiving = False

        @property
        def is_idle(self) -> bool:
            return not self._unanswered and not self._is_receiving

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._unanswered.append(self.scope)
            self._is_receiving = True

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._is_receiving = False
            if server.outlet is not None:
                server.outlet.offer(self)

        def on_response_complete(self) -> None:
            answered = self._unanswered.popleft()
            super().on_response_complete()
            server.answered(answered)
            if server.outlet is not None:
                server.outlet.offer(self)

    return RecyclingHttpToolsProtocol


def _h11_protocol(base: Any, server: RecyclingServer) -> type:
    import h11

    idle = h11.IDLE

    class RecyclingH11Protocol(base):  # type: ignore[misc]
        @property
        def is_idle(self) -> bool:
            return (
                self.conn.our_state is idle
                and self.conn.their_state is idle
                and not self.conn.trailing_data[0]
            )

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # The end of a body that was answered early is seen nowhere else.
            if server.outlet is not None:
                server.outlet.offer(self)

        def on_response_complete(self) -> None:
            answered = self.scope  # the next request may begin within the call
            super().on_response_complete()
            server.answered(answered)
            if server.outlet is not None:
                server.outlet.offer(self)

    return RecyclingH11Protocol
