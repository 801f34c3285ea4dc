"""What the measured app answers: who it was, and a sum over the body that it was sent.

The sum tells an answer to another request, or to a request of which bytes were lost, from the right
one. Tests that bring an app of their own answer in the same way.
"""

from __future__ import annotations

import zlib


def answer_to(body: bytes, pid: int) -> bytes:
    """The answer of process `pid` to a request with this body."""
    return b"%d %08x" % (pid, zlib.crc32(body))


def pid_in(answer: bytes, body: bytes) -> int | None:
    """Who answered; None: this is no answer to that body."""
    pid, _, check = answer.partition(b" ")
    if check != b"%08x" % zlib.crc32(body) or not pid.isdigit():
        return None
    return int(pid)
