"""Plays an outage against `hot_mcp_tool.py`, over MCP, and tells what the breaker did.

    python examples/hot_mcp_client.py [--failure-threshold 3] [--reset-timeout 2.0]

Exit code 0: the breaker opened, failed fast, and recovered by a single probe. 1: it did not.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, TextContent

SERVER = Path(__file__).with_name("hot_mcp_tool.py")
CALLERS = 10
# Only a story that has gone wrong takes so long.
PATIENCE_S = 10.0


class StoryError(Exception):
    """Something went otherwise than the story says."""


class Answer:
    """What a tool answered: its text, whether it is an error, and the time to retry, if told."""

    def __init__(self, result: CallToolResult) -> None:
        content = result.content[0]
        self.text = content.text if isinstance(content, TextContent) else ""
        self.failed = bool(result.isError)
        told = re.search(r"try again in ([0-9.]+) s", self.text)
        self.retry_after = float(told[1]) if told else None

    @property
    def rejected(self) -> bool:
        return self.retry_after is not None


class Client:
    def __init__(self, session: ClientSession) -> None:
        self.session = session

    async def search(self) -> Answer:
        return Answer(await self.session.call_tool("search", {"query": "memory leak"}))

    async def upstream(self, mode: str) -> None:
        await self.session.call_tool("upstream", {"mode": mode})

    async def status(self) -> dict[str, Any]:
        result = await self.session.call_tool("status", {})
        if result.structuredContent is None:
            raise StoryError("status has no structured content")
        return result.structuredContent


def tell(text: str) -> None:
    print(text, flush=True)


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise StoryError(otherwise)


async def fails_until_open(client: Client, failure_threshold: int) -> None:
    answer = await client.search()
    expect(not answer.failed, f"a healthy upstream answered {answer.text!r}")
    tell(f"upstream healthy   search -> {answer.text}")
    await client.upstream("failing")
    for n in range(1, failure_threshold + 1):
        answer = await client.search()
        expect(answer.failed and not answer.rejected, f"call {n} should have reached the upstream")
        tell(f"upstream failing   search -> {answer.text.splitlines()[0]}")
    status = await client.status()
    state = status["breaker"]
    expect(state == "open", f"the breaker is {state} after {failure_threshold} failures")


async def fails_fast(client: Client) -> float:
    before = await client.status()
    start = time.perf_counter()
    answers = [await client.search() for _ in range(CALLERS)]
    each_ms = (time.perf_counter() - start) / CALLERS * 1000
    after = await client.status()
    expect(all(answer.rejected for answer in answers), "an open breaker let a call through")
    reached = after["requests"] - before["requests"]
    expect(reached == 0, f"{reached} rejected calls reached the upstream")
    last = answers[-1]
    assert last.retry_after is not None
    tell(f"breaker open       search -> {last.text}")
    tell(f"                   {CALLERS} calls, {each_ms:.1f} ms each, 0 reached the upstream")
    return last.retry_after


async def recovers_by_one_probe(client: Client, retry_after: float) -> None:
    # Slow: the probe stays in flight until every other caller has its answer.
    await client.upstream("slow")
    before = await client.status()
    tell(f"upstream mended    waiting the {retry_after:.3f} s that the error told")
    await asyncio.sleep(retry_after)
    waiting = {asyncio.create_task(client.search()) for _ in range(CALLERS)}
    try:
        while len(waiting) > 1:
            done, waiting = await asyncio.wait(
                waiting, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
            expect(bool(done), f"{len(waiting)} calls at once were let through")
            expect(all(task.result().rejected for task in done), "a probe did not wait")
        held = await client.status()
    finally:
        await client.upstream("healthy")
        answers = await asyncio.gather(*waiting)
    (answer,) = answers
    expect(not answer.failed, f"the probe failed: {answer.text}")
    probes = held["requests"] - before["requests"]
    expect(probes == 1, f"{probes} probes reached the upstream")
    tell(f"breaker {held['breaker']}  {CALLERS} calls at once: 1 probe, {CALLERS - 1} rejected")
    after = await client.status()
    expect(after["breaker"] == "closed", f"the breaker is {after['breaker']} after the probe")
    answers = await asyncio.gather(*[client.search() for _ in range(CALLERS)])
    expect(not any(answer.failed for answer in answers), "a call failed after the recovery")
    tell(f"breaker closed     probe -> {answer.text}; {CALLERS} calls at once, all answered")


async def story(failure_threshold: int, reset_timeout: float) -> str | None:
    """Play it; return what went otherwise, if anything did."""
    options = [f"--failure-threshold={failure_threshold}", f"--reset-timeout={reset_timeout}"]
    server = StdioServerParameters(command=sys.executable, args=[str(SERVER), *options])
    async with AsyncExitStack() as stack:
        streams = await stack.enter_async_context(stdio_client(server))
        session = await stack.enter_async_context(ClientSession(*streams))
        await session.initialize()
        client = Client(session)
        # Caught here, inside the session's task group, which would wrap it in an ExceptionGroup.
        try:
            await fails_until_open(client, failure_threshold)
            await recovers_by_one_probe(client, await fails_fast(client))
        except StoryError as error:
            return str(error)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="an outage, and how a breaker handles it")
    parser.add_argument("--failure-threshold", type=int, default=3, metavar="N")
    parser.add_argument("--reset-timeout", type=float, default=2.0, metavar="SECONDS")
    options = parser.parse_args()
    otherwise = asyncio.run(story(options.failure_threshold, options.reset_timeout))
    if otherwise is not None:
        print(f"FAILED: {otherwise}", file=sys.stderr)
        return 1
    tell("the breaker opened, failed fast, and recovered by a single probe")
    return 0


if __name__ == "__main__":
    sys.exit(main())
