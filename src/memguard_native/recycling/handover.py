"""Gives idle connections away while a server drains, without closing one, and takes them in.

Between two requests a connection has no state in user space: what the client sent meanwhile lies in
the kernel and travels with the descriptor. So the descriptor is sent to the next owner and only our
copy of it is closed: no FIN, no RST, and no race with a request that is on its way.

A connection is given away only where nothing of a request or of an answer is left here. One that is
not idle is left alone, and its protocol offers it again when that may have changed.

All of it runs on the server's event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

_FULL_RETRY = 0.001
_WRITE_RETRY = 0.0005
_WRITE_RETRY_LONGEST = 0.016


class Connection(Protocol):
    """What the protocols of `recycling.protocol` offer."""

    transport: Any

    @property
    def is_idle(self) -> bool:
        """Nothing of a request or of an answer is in this process."""
        ...

    def forget_timer(self) -> None:
        """Cancel the keep-alive timer."""


class Handover:
    """Hands out the connections that are offered, as soon as they are idle.

    `hand_out(descriptor)` sends it and returns True, or returns False where it cannot be sent now;
    then it is tried again in 1 ms. The descriptor stays open for the time of the call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, hand_out: Callable[[int], bool]) -> None:
        self._loop = loop
        self._hand_out = hand_out
        self._offered: OrderedDict[Connection, float] = OrderedDict()
        self._timer: asyncio.Handle | None = None
        self._is_stopped = False

    def offer(self, connection: Connection, retry: float = _WRITE_RETRY) -> None:
        """Hand `connection` out in a later turn of the loop, if it is idle then.

        `retry`: seconds to wait where the answer's last bytes are not yet with the kernel.
        """
        if self._is_stopped:
            return
        self._offered[connection] = retry
        # Never at once: the hooks that offer are called from within the protocol's own work.
        if self._timer is None:
            self._timer = self._loop.call_soon(self._run)

    def stop(self) -> None:
        """Hand out nothing more."""
        self._is_stopped = True
        self._offered.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        self._timer = None
        while self._offered:
            connection, retry = self._offered.popitem(last=False)
            if connection.transport.is_closing() or not connection.is_idle:
                continue
            if connection.transport.get_write_buffer_size() > 0:
                # uvloop writes at the end of a turn; a slow reader takes as long as it likes.
                longer = min(2 * retry, _WRITE_RETRY_LONGEST)
                self._loop.call_later(retry, self.offer, connection, longer)
            elif not self._sent(connection):
                self._offered[connection] = retry
                self._offered.move_to_end(connection, last=False)
                self._timer = self._loop.call_later(_FULL_RETRY, self._run)
                return

    def _sent(self, connection: Connection) -> bool:
        transport = connection.transport
        # From here on nothing more is read: what arrives now is for the next owner.
        transport.pause_reading()
        sent = False
        try:
            sent = self._hand_out(transport.get_extra_info("socket").fileno())
        finally:
            if not sent:
                transport.resume_reading()
        if sent:
            connection.forget_timer()
            transport.abort()  # closes our descriptor only: the socket lives on in the other one
        return sent


class Closing:
    """Closes the connections that are offered once they are idle: where nobody takes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def offer(self, connection: Connection) -> None:
        """Close `connection` in the next turn of the loop, if it is idle then."""
        self._loop.call_soon(self._close, connection)

    def stop(self) -> None:
        """Nothing is kept."""

    def _close(self, connection: Connection) -> None:
        if connection.is_idle:
            connection.transport.close()


async def take_in(
    descriptor: int, accepted: Callable[[], None], make_protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Make the loop serve the connection with this descriptor, and close it in the end.

    `accepted()` is called before the first byte is read, and again in 1 ms where it raises
    BlockingIOError.

    Raises OSError: what `accepted()` raised; nothing was read, and only this descriptor is closed.
    """
    connection = socket.socket(fileno=descriptor)
    try:
        connection.setblocking(False)
        while not _was_told(accepted):
            await asyncio.sleep(_FULL_RETRY)
        await asyncio.get_running_loop().connect_accepted_socket(make_protocol, connection)
    except BaseException:
        connection.close()
        raise


def _was_told(accepted: Callable[[], None]) -> bool:
    try:
        accepted()
    except BlockingIOError:
        return False
    return True


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Close the listeners, after what was accepted from them has reached its protocol.

    asyncio accepts in one turn of the loop and makes the transport in a later one. For a listener
    that was closed between them it cannot, and drops the connection without a word.
    """
    loop = asyncio.get_running_loop()
    for server in servers:
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for server in servers:
        server.close()
