"""When a worker asks to be replaced: its limits, what counts towards them, what others want of it.

It tells the supervisor, and goes on serving. One wish stands at a time; which of several:
`reasons.comes_before`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from memguard_native.errors import MemguardError
from memguard_native.recycling.limits import draw_limits, reached
from memguard_native.recycling.messages import Channel, Kind
from memguard_native.recycling.policy import ResolvedPolicy
from memguard_native.recycling.reasons import Reason, comes_before

if TYPE_CHECKING:
    from memguard_native.recycling.server import RecyclingServer

logger = logging.getLogger("memguard_native.recycling")


class WorkerWishes:
    """On the event loop, but for `count` and `ask_from_any_thread`."""

    server: RecyclingServer

    def __init__(self, channel: Channel, policy: ResolvedPolicy) -> None:
        self._channel = channel
        self._limits = draw_limits(policy, random.Random())
        self._request_limit = self._limits.requests or sys.maxsize
        self._counting = threading.Lock()
        self._inputs = self._tokens = 0
        self._wish: Reason | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """None: it does not run yet, and nobody can ask."""
        self.ready_at: float | None = None
        """When the worker became ready: limits hold from then on."""

    # --- any thread -----------------------------------------------------------------------------

    def count(self, inputs: int, tokens: int) -> None:
        """So much more was worked on."""
        with self._counting:
            self._inputs += inputs
            self._tokens += tokens
        limits = self._limits
        if self._inputs >= (limits.inputs or sys.maxsize) or self._tokens >= (
            limits.tokens or sys.maxsize
        ):
            self._call_soon(self.check_limits)

    def ask_from_any_thread(
        self, reason: Reason, evidence: Mapping[str, object] | None = None
    ) -> None:
        """Ask to be replaced. Raises MemguardError: the event loop does not run yet."""
        self._call_soon(self.ask, reason, evidence)

    def _call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        if self.loop is None:
            raise MemguardError("a worker can ask to be replaced once its event loop runs")
        try:
            self.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop has ended: so does this process
            logger.debug("a wish to be replaced came too late")

    # --- on the event loop ----------------------------------------------------------------------

    def ask(self, reason: Reason, evidence: Mapping[str, object] | None = None) -> None:
        """Ask to be replaced, unless the wish that stands counts more."""
        if not comes_before(reason, self._wish):
            return
        self._channel.send(
            Kind.wish, payload={"reason": reason, "evidence": dict(evidence or self.work())}
        )
        self._wish = reason

    def withdraw(self, reason: Reason) -> None:
        """The reason has vanished."""
        if self._wish is reason:
            self._wish = None
            self._channel.send(Kind.wish, payload={"reason": reason, "is_over": True})

    def on_request(self) -> None:
        """An answer that counts."""
        # For each request: all limits would take as long as the rest of what is ours.
        if self.server.requests >= self._request_limit:
            self.check_limits()

    def check_limits(self) -> None:
        """Ask if one is reached."""
        if self.ready_at is None:
            return
        age = time.monotonic() - self.ready_at
        reason = reached(
            self._limits,
            requests=self.server.requests,
            inputs=self._inputs,
            tokens=self._tokens,
            age=age,
        )
        if reason is not None:
            self.ask(reason, {**self.work(), "age": round(age, 1)})

    def work(self) -> dict[str, int]:
        """What was done, and what is being done."""
        server = self.server
        return {
            "requests": server.requests,
            "in_flight": server.in_flight,
            "connections": server.connections,
            "inputs": self._inputs,
            "tokens": self._tokens,
        }
