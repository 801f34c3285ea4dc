"""One load on one server, and what can be said of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from bench.harness import Timeline
from bench.recycle.lives import Shortage, shortage
from bench.recycle.load import Load, send
from bench.recycle.results import Result
from bench.recycle.servers import Renewals, Running

# Between two looks at the workers.
_LOOK_S = 0.02
_STEP_S = 0.1
_SETTLE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Run:
    """What the requests came to, and what the workers did meanwhile."""

    result: Result
    ends: Sequence[float]
    shortage: Shortage

    @property
    def recycles(self) -> int:
        """Workers that ended while requests were sent."""
        return len(self.ends)

    def timeline(self) -> Timeline:
        """The longest latency of each tenth of a second."""
        start = self.result.started_at
        steps = int((self.result.ended_at - start) / _STEP_S) + 1
        longest: list[float | None] = [None] * steps
        for answer in self.result.answers:
            step = int((answer.at - start) / _STEP_S)
            longest[step] = round(max(longest[step] or 0.0, answer.latency * 1000), 2)
        moments = {
            "failed requests": [round(failed.at - start, 3) for failed in self.result.failures],
            "replaced workers": [round(end - start, 3) for end in self.ends],
        }
        return Timeline("longest, ms", _STEP_S, longest, moments)


def measured(running: Running, load: Load, *, renews: bool = False) -> Run:
    """Send the load; with `renews` the server is asked to replace its workers again and again."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_send(running, load, Renewals(running) if renews else None))
    running.lives.look()
    start, end = result.started_at, result.ended_at
    ends = [life.ended_at for life in running.lives.all if life.ended_at is not None]
    return Run(
        result=result,
        ends=sorted(at for at in ends if start < at <= end),
        shortage=shortage(running.lives.all, running.workers, start, end),
    )


def settle(running: Running) -> None:
    """Wait until no worker is being replaced, so that this is not part of another's time."""
    end = time.monotonic() + _SETTLE_TIMEOUT_S
    running.lives.look()
    while not running.is_settled() and time.monotonic() < end:
        time.sleep(_LOOK_S)
        running.lives.look()


async def _send(running: Running, load: Load, renewals: Renewals | None) -> Result:
    watching = asyncio.create_task(_watch(running, renewals))
    try:
        return await send(load)
    finally:
        watching.cancel()


async def _watch(running: Running, renewals: Renewals | None) -> None:
    while True:
        running.lives.look()
        if renewals is not None:
            renewals.step()
        await asyncio.sleep(_LOOK_S)
