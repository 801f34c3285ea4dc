"""An MCP server with one hot tool, whose outgoing call is guarded by a circuit breaker.

    python examples/hot_mcp_tool.py [--failure-threshold 3] [--reset-timeout 2.0]

It speaks MCP over stdio. `search` asks an upstream over HTTP. Without a breaker, a model that
calls the tool again and again while the upstream is down waits each time, and hits the upstream
each time. With it, the tool answers at once and says when trying again makes sense.

So that this can be watched, the upstream is a small HTTP server in this process, and two more
tools belong to the demonstration: `upstream` makes it healthy, failing or slow, `status` tells
what happened. `examples/hot_mcp_client.py` plays the whole story.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError

from memguard_native import CircuitBreaker, CircuitOpenError

Mode = Literal["healthy", "failing", "slow"]


class Upstream:
    """A local HTTP server: answers 200 when healthy, 503 when failing, and nothing while slow."""

    def __init__(self) -> None:
        self.requests = 0
        self.url = ""
        self._failing = False
        self._answering = asyncio.Event()
        self._answering.set()

    def switch(self, mode: Mode) -> None:
        self._failing = mode == "failing"
        if mode == "slow":
            self._answering.clear()
        else:
            self._answering.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield
        finally:
            self._answering.set()
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        await self._answering.wait()
        status = b"503 Service Unavailable" if self._failing else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfound" % status)
        await writer.drain()
        writer.close()


def create_server(failure_threshold: int, reset_timeout: float) -> FastMCP:
    upstream = Upstream()
    breaker = CircuitBreaker("search", failure_threshold, reset_timeout)

    @breaker
    async def ask_upstream(query: str) -> str:
        async with httpx.AsyncClient(timeout=30.0) as client:
            response = await client.get(upstream.url, params={"q": query})
        return response.raise_for_status().text

    @asynccontextmanager
    async def lifespan(_: FastMCP) -> AsyncIterator[None]:
        async with upstream.running():
            yield

    server = FastMCP("hot tool", lifespan=lifespan, log_level="WARNING")

    @server.tool()
    async def search(query: str) -> str:
        """Search the upstream."""
        try:
            return await ask_upstream(query)
        except CircuitOpenError as error:
            # The model reads this: it can do something else, and knows when to come back.
            # Rounded up: who comes back exactly then must not be too early.
            wait = math.ceil(error.retry_after * 1000) / 1000
            raise ToolError(f"search is unavailable, try again in {wait} s") from None

    @server.tool(name="upstream")
    async def switch_upstream(mode: Mode) -> str:
        """Make the demonstration's upstream healthy, failing or slow."""
        upstream.switch(mode)
        return mode

    @server.tool()
    async def status() -> dict[str, Any]:
        """The breaker's state and how many requests reached the upstream."""
        return {"breaker": str(breaker.state), "requests": upstream.requests}

    return server


def main() -> None:
    parser = argparse.ArgumentParser(description="an MCP server with a guarded tool, over stdio")
    parser.add_argument("--failure-threshold", type=int, default=3, metavar="N")
    parser.add_argument("--reset-timeout", type=float, default=2.0, metavar="SECONDS")
    options = parser.parse_args()
    create_server(options.failure_threshold, options.reset_timeout).run()


if __name__ == "__main__":
    main()
