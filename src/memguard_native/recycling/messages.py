"""Messages between supervisor, zygote and workers, descriptors among them.

Each pair of processes has one AF_UNIX SOCK_SEQPACKET pair: a message is received whole or not at
all, and the end of one process is the end of the channel for the other. A frame is 16 bytes (kind,
flags, length of the payload, sequence number, argument) and at most 4 KiB of JSON.

Nothing here ever blocks. `send()` keeps what the kernel has no room for, in order; `flush()` sends
it later. A descriptor is sent now or not at all: whoever has it keeps it until then.

One thread.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from memguard_native.errors import ConfigError

_HEADER = struct.Struct("<BBHIQ")
MAX_PAYLOAD_BYTES = 4096
_DESCRIPTOR_BYTES = array.array("i").itemsize
# The queue of the other end is full, or too many descriptors of this user are in flight.
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class Kind(IntEnum):
    """What a frame says; `seq` and `arg` mean what is told here, else nothing."""

    # from a worker
    hello = ord("H")
    """It lives: arg its process number, payload its slot of the segment."""
    ready = ord("R")
    """It serves: payload how long it took to start."""
    wish = ord("Q")
    """It wants to be replaced: payload reason and figures; with `is_over` it no longer does."""
    # from a worker, and to one
    connection = ord("C")
    """A connection and its descriptor, seq names it; adopt it."""
    adopted = ord("A")
    """The connection `seq` is mine, nothing was read of it before."""
    ended = ord("E")
    """It has drained, or could not start: payload what became of its connections, or why."""
    # to a worker
    drain = ord("D")
    """Hand over or finish what there is: payload tier and times."""
    settings = ord("S")
    """What changed: payload `stopping`, and `reason` why the service is not ready."""
    exit = ord("X")
    """End at once (a worker), or when the last child has (a zygote)."""
    # to a zygote
    fork = ord("F")
    """Fork a worker: seq its generation, payload what it is to know, its end of a channel."""
    # from a zygote
    loaded = ord("Z")
    """The application is imported: payload how long it took, what threads run; or why not."""
    forked = ord("P")
    """Worker `seq` has process number arg; its pidfd."""
    reaped = ord("W")
    """Worker `seq` is gone: arg its wait status."""


class Frame(NamedTuple):
    """One message. `descriptor`: the receiver's to close; None: none was sent, or it was lost."""

    kind: Kind
    seq: int = 0
    arg: int = 0
    payload: Mapping[str, Any] = MappingProxyType({})
    descriptor: int | None = None


NOT_UNDERSTOOD = (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What reading a message raises, or its payload, that is none of ours."""


class ChannelClosedError(Exception):
    """The other process is gone; all that it had sent was received before."""


class Channel:
    """One end of a pair, which it owns."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting: deque[bytes] = deque()

    def fileno(self) -> int:
        """For a selector."""
        return self._end.fileno()

    @property
    def has_waiting(self) -> bool:
        """Whether `flush()` has something to send."""
        return bool(self._waiting)

    def send(
        self, kind: Kind, *, seq: int = 0, arg: int = 0, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Send a frame, now or at the next `flush()`. To an end that is gone: nothing.

        Raises ValueError: the payload has more than 4096 bytes.
        """
        self._waiting.append(encode(kind, seq=seq, arg=arg, payload=payload))
        self.flush()

    def send_now(self, kind: Kind, *, seq: int = 0, arg: int = 0) -> bool:
        """Send a frame now or not at all; whether it was sent, or has nobody to go to."""
        return self.flush() and self._try_to_send(encode(kind, seq=seq, arg=arg))

    def flush(self) -> bool:
        """Send what waits; whether nothing does any more."""
        while self._waiting:
            if not self._try_to_send(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def send_descriptor(
        self,
        kind: Kind,
        descriptor: int,
        *,
        seq: int = 0,
        arg: int = 0,
        payload: Mapping[str, Any] | None = None,
    ) -> bool:
        """Send a frame with a descriptor; False: there is no room for it now.

        Raises ChannelClosedError.
        """
        if not self.flush():
            return False
        frame = encode(kind, seq=seq, arg=arg, payload=payload)
        rights = array.array("i", [descriptor]).tobytes()
        return self._try_to_send(frame, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], told=True)

    def _try_to_send(
        self,
        frame: bytes,
        rights: list[tuple[int, int, bytes]] | None = None,
        *,
        told: bool = False,
    ) -> bool:
        try:
            self._end.sendmsg([frame], rights or [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in _FULL:
                return False
            if error.errno not in _GONE:
                raise
            if told:
                raise ChannelClosedError from error
            # Its end is told by receive(), once all that it had sent was received.
        return True

    def receive(self) -> Frame | None:
        """The next frame; None: there is none now. Raises ChannelClosedError, or NOT_UNDERSTOOD."""
        try:
            try:
                data, messages = self._receive()
            except ConnectionResetError:
                # An end that had not read all says so first; what it had sent comes after.
                data, messages = self._receive()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _GONE:
                raise ChannelClosedError from error
            raise
        if not data:
            raise ChannelClosedError
        descriptor = None
        for level, kind, rights in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptor = array.array("i", rights[:_DESCRIPTOR_BYTES])[0]
        try:
            return _decode(data, descriptor)
        except NOT_UNDERSTOOD:
            if descriptor is not None:
                os.close(descriptor)
            raise

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        # recv_fds() gives descriptors that children inherit, whatever flags it is told.
        data, messages, _, _ = self._end.recvmsg(
            _HEADER.size + MAX_PAYLOAD_BYTES,
            socket.CMSG_SPACE(_DESCRIPTOR_BYTES),
            socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
        )
        return data, messages

    def close(self) -> None:
        """The other process sees that this one is gone."""
        self._end.close()


def open_channel() -> tuple[Channel, socket.socket]:
    """A channel, and its other end for another process. No child inherits either by itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), theirs


def encode(
    kind: Kind, *, seq: int = 0, arg: int = 0, payload: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of a frame. Raises ValueError: the payload has more than 4096 bytes."""
    body = _json(dict(payload)) if payload else b""
    if len(body) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(body)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
    return _HEADER.pack(kind, 0, len(body), seq, arg) + body


def shortened(text: str, most: int) -> str:
    """The beginning of a text that takes so many bytes in a payload at most."""
    text = text[:most]
    while len(_json(text)) > most:
        text = text[: len(text) * 3 // 4]
    return text


def fields_of(error: ConfigError) -> list[str]:
    """A ConfigError for a payload: its field, its value as it is shown, and what is allowed."""
    return [error.field, shortened(repr(error.value), 500), shortened(error.allowed, 1000)]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def _decode(data: bytes, descriptor: int | None) -> Frame:
    kind, _, length, seq, arg = _HEADER.unpack_from(data)
    body = data[_HEADER.size : _HEADER.size + length]
    return Frame(Kind(kind), seq, arg, json.loads(body) if body else {}, descriptor)


def close_descriptor(frame: Frame) -> None:
    """Close what came with a frame that nobody wants."""
    if frame.descriptor is not None:
        os.close(frame.descriptor)
