"""The memory of a worker: what is its own, when it is too much, and what its monitor says.

Own memory. A worker that was forked shows the memory of its template as its own: 396 MiB, and 1 is
its own. So what it had when it became ready is measured once, exactly and dearly (smaps_rollup),
and from then on private memory is read cheaply: own = private now - private then + own then. Pages
that are copied later do not move that figure, hence an exact look before anything is decided.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from memguard_native import _core
from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.alert import Alert
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.probe import memory_footprint
from memguard_native.memory.sample import MemorySample
from memguard_native.recycling.memory_rule import MemoryRule, MemoryStep
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace

if TYPE_CHECKING:
    from memguard_native.segment import Segment

logger = logging.getLogger("memguard_native.recycling")

# An idle gap, so that no client waits for a collection; without one for so long, it comes anyway.
_GAP = 0.2
_PATIENCE = 60.0
_LOOK_INTERVAL = 0.05
_MINUTE = 60.0
_MIB = 2**20
_DAY = 24 * 3600.0

Ask = Callable[[Reason, Mapping[str, object] | None], None]


class WorkerMemory:
    """On the event loop, but for what the monitor's thread calls.

    `ask(reason, evidence)` from any thread; `withdraw(reason)` on the event loop.
    """

    segment: Segment
    watchdog: _core.Watchdog

    def __init__(
        self,
        settings: ServiceSettings,
        place: WorkerPlace,
        ask: Ask,
        withdraw: Callable[[Reason], None],
    ) -> None:
        self._policy = settings.policy
        self._ask = ask
        self._withdraw = withdraw
        self._offset_bytes = 0
        self._next_sample_at = 0.0
        self._deciding: asyncio.Task[None] | None = None
        self.read_load: Callable[[], float] | None = None
        """What the load is, if the application knows it better than the requests in flight."""
        policy = self._policy
        self._rule = None
        if policy.max_memory is not None:
            self._rule = MemoryRule(
                policy.max_memory,
                confirm_samples=policy.confirm_samples,
                hysteresis=policy.hysteresis,
                trim_first=policy.trim_first,
            )
        self._settings = settings
        self._monitor: MemoryMonitor | None = None

    @property
    def monitor(self) -> MemoryMonitor:
        """The monitor of this worker; made at the first look, once the application has started."""
        if self._monitor is None:
            self._monitor = self._new_monitor()
        return self._monitor

    def _new_monitor(self) -> MemoryMonitor:
        policy, minute_s = self._policy, self._settings.minute_s
        scale = minute_s / _MINUTE
        return MemoryMonitor(
            interval=minute_s,
            minute_s=minute_s,
            load=self.read_load,
            scope="host",
            namespace=self._settings.namespace,
            actions=ActionPolicy(
                collect=True,
                trim=policy.trim_first,
                recycle=policy.on_leak,
                recycle_after=600.0 * scale,
                idle_patience=300.0 * scale,
                recycle_horizon=min(_DAY, policy.forecast_horizon or 0.0),
            ),
            on_sample=self._on_sample,
            on_recycle=self._on_leak,
        )

    async def begin(self) -> None:
        """The application has started: what it has now is its baseline."""
        gc.collect()
        await self._exact()
        self._tell()

    def start(self) -> None:
        """Watch. The monitor starts aside: with what it imports it would keep requests waiting."""
        self._next_sample_at = time.monotonic() + self._policy.sample_interval
        asyncio.get_running_loop().run_in_executor(None, self.monitor.start)

    def stop(self) -> None:
        """Watch no longer."""
        if self._monitor is not None:
            self._monitor.stop()

    def figures(self) -> dict[str, int]:
        """Own and private memory now."""
        private_bytes = _core.private_bytes()
        return {
            "own_bytes": max(0, private_bytes - self._offset_bytes),
            "private_bytes": private_bytes,
        }

    def on_second(self) -> None:
        """Tell it, and decide about it every `sample_interval`."""
        own_bytes = self._tell()
        if self._rule is None or time.monotonic() < self._next_sample_at:
            return
        self._next_sample_at = time.monotonic() + self._policy.sample_interval
        if self._deciding is not None and not self._deciding.done():
            return
        step = self._rule.sampled(own_bytes)
        if step is MemoryStep.confirm:
            self._deciding = asyncio.ensure_future(self._decide(self._rule))
        elif step is MemoryStep.vanished:
            self._withdraw(Reason.memory)

    def _tell(self) -> int:
        figures = self.figures()
        self.segment.core.tell_memory(**figures)
        return figures["own_bytes"]

    async def _decide(self, rule: MemoryRule) -> None:
        """Look exactly, give back what malloc and the collector hold, and look again."""
        before = await self._exact()
        step = rule.confirmed(before)
        after = before
        if step is MemoryStep.trim:
            await self._idle_gap()
            gc.collect()
            await asyncio.to_thread(_core.malloc_trim)
            after = await self._exact()
            step = rule.trimmed(after)
            logger.info(
                "own memory was %.1f MiB, and is %.1f after collecting and trimming",
                before / _MIB,
                after / _MIB,
            )
        if step is MemoryStep.recycle:
            evidence = {
                "own_bytes": before,
                "after_trim_bytes": after,
                "max_bytes": self._policy.max_memory,
            }
            self._ask(Reason.memory, evidence)

    async def _exact(self) -> int:
        """Own memory; what is read cheaply counts from there on."""
        footprint = await asyncio.to_thread(memory_footprint)
        private_bytes = _core.private_bytes()
        own_bytes = private_bytes if footprint is None else footprint.uss_bytes
        self._offset_bytes = private_bytes - own_bytes
        self.watchdog.watch_memory(self._policy.hard_memory, self._offset_bytes)
        return own_bytes

    async def _idle_gap(self) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and (self.monitor.load.idle_seconds() or 0.0) < _GAP:
            await asyncio.sleep(_LOOK_INTERVAL)

    # --- on the monitor's thread ----------------------------------------------------------------

    def _on_sample(self, sample: MemorySample) -> None:
        forecast = self.monitor.snapshot().forecast
        self.segment.core.tell_forecast(None if forecast is None else forecast.earliest_seconds)
        horizon = self._policy.forecast_horizon
        if forecast is not None and horizon is not None and forecast.earliest_seconds <= horizon:
            self._ask(Reason.forecast, forecast.to_dict())

    def _on_leak(self, alert: Alert) -> None:
        evidence = {
            "rate_mb_per_hour": round(alert.rate_mb_per_hour, 2),
            "cause": alert.cause,
            "window_minutes": alert.window_minutes,
            "private_bytes": _core.private_bytes(),
        }
        self._ask(Reason.leak, evidence)
