"""Reads a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from memguard_native.embedding.errors import ApiError, too_large

# Of a body that is too large so much is read and thrown away: closing a connection with unread data
# resets it, and the client would see a broken connection (and try again) instead of the answer.
_DISCARD_FACTOR = 8


async def read_body(request: Request, max_bytes: int, timeout: float) -> bytes:
    """Return the body.

    Raises ApiError: it has more than `max_bytes`, or takes longer than `timeout` seconds to arrive.
    ClientDisconnect (starlette's): the client left.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _read(request, max_bytes)
    except TimeoutError as error:
        message = f"The body did not arrive within {timeout:g} s."
        raise ApiError(408, "request_timeout", message) from error


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    fits = size <= max_bytes
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        fits = fits and received <= max_bytes
        if fits:
            chunks.append(chunk)
        else:
            chunks.clear()
        if max(size, received) > _DISCARD_FACTOR * max_bytes:
            break
    if not fits:
        raise too_large(f"The body has more than {max_bytes} bytes: split its inputs over several.")
    return b"".join(chunks)
