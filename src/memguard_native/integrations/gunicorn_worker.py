"""A gunicorn worker that watches its memory, and has itself replaced before it ends.

`OwnMemory` tells when memory is too much, `Replacement` asks the arbiter for another worker and
tells when this one may go, `WorkerWatch` is the thread that asks both. The first two are driven by
one thread and given all that they touch.

The worker that is to go ends itself, by the SIGTERM that the arbiter would send, and the arbiter
lowers the number of workers when it reaps it. SIGTTOU is not used: it retires the oldest worker,
which need not be the one that is too large, and nobody could tell whether a worker that was killed
has sent it.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memguard_native import _core
from memguard_native.errors import SegmentError
from memguard_native.integrations.gunicorn_table import Phase, WorkerTable
from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.alert import Alert
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.probe import memory_footprint
from memguard_native.recycling.memory_rule import MemoryRule, MemoryStep
from memguard_native.recycling.policy import ResolvedPolicy

_MIB = 2**20
_DAY = 24 * 3600.0
_IDLE_TICK = 1.0
_BUSY_TICK = 0.1
_FIRST_HEARTBEAT_TICK = 0.05
_RETRY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSettings:
    """What a worker is told by the arbiter."""

    policy: ResolvedPolicy
    ready_timeout: float


class OwnMemory:
    """The memory of this worker that it does not share with the arbiter, against its limit.

    Private memory counts what came by the fork as well. So own memory is measured exactly and
    dearly once, and from there on what private memory has grown by is added; that misses pages that
    are copied later, hence an exact look before anything is decided.
    """

    def __init__(
        self,
        rule: MemoryRule,
        *,
        private_bytes: Callable[[], int],
        exact_bytes: Callable[[], int | None],
        give_back: Callable[[], object],
    ) -> None:
        self._rule = rule
        self._private_bytes = private_bytes
        self._exact_bytes = exact_bytes
        self._give_back = give_back
        self._inherited_bytes = 0
        self.begin_bytes = self._exact()
        """What it had when the watch began."""
        self.excess: str | None = None
        """Why this worker is to be replaced; None while it is not."""

    def look(self) -> None:
        """Take a sample: once every `sample_interval`."""
        step = self._rule.sampled(max(0, self._private_bytes() - self._inherited_bytes))
        if step is MemoryStep.vanished:
            self.excess = None
        if step is not MemoryStep.confirm:
            return
        found = self._exact()
        step = self._rule.confirmed(found)
        after = found
        if step is MemoryStep.trim:
            self._give_back()
            after = self._exact()
            step = self._rule.trimmed(after)
        if step is MemoryStep.recycle:
            trimmed = "" if after == found else f", and {after / _MIB:.1f} MiB after a trim"
            self.excess = f"{found / _MIB:.1f} MiB of its own{trimmed}"

    def _exact(self) -> int:
        private_bytes = self._private_bytes()
        found = self._exact_bytes()
        if found is None:  # no smaps_rollup: what is known cheaply has to do
            return max(0, private_bytes - self._inherited_bytes)
        self._inherited_bytes = private_bytes - found
        return found


class Replacement:
    """The way of this worker to its end: another one first, then this one goes."""

    def __init__(
        self,
        table: WorkerTable,
        entry: int,
        pid: int,
        *,
        add_worker: Callable[[], None],
        kill: Callable[[int], None],
        log: Any,
        ready_timeout: float,
    ) -> None:
        self._table = table
        self._entry = entry
        self._pid = pid
        self._add_worker = add_worker
        self._kill = kill
        self._log = log
        self._ready_timeout = ready_timeout
        self._retry_at = 0.0
        self.is_under_way = False
        """Whether the arbiter was asked."""

    def step(self, now: float) -> bool:
        """Do what is next; whether this worker may go. `now` is in monotonic seconds."""
        if not self.is_under_way:
            return now >= self._retry_at and self._ask()
        table = self._table
        phase = table.phase
        if table.holder != self._pid:
            self._give_up(now, "gunicorn has changed its workers meanwhile")
        elif phase is Phase.asked:
            if table.phase_seconds > self._ready_timeout:
                table.forget()
                self._give_up(now, "gunicorn does not answer SIGTTIN")
        elif table.others_serving(self._entry) >= table.count - 1:
            return True
        elif phase is Phase.cancelled:
            # Until one is reaped that never served, which ends the phase, or enough of them serve.
            for pid in table.others_starting(self._entry)[:1]:
                self._kill(pid)
        elif table.phase_seconds > self._ready_timeout:
            self._log.error(
                "memguard: no worker came to serve within ready_timeout, %g s; worker (pid:%s) "
                "goes on",
                self._ready_timeout,
                self._pid,
            )
            table.cancel()
        return False

    def _ask(self) -> bool:
        if not self._table.take(self._pid):
            return False
        try:
            self._add_worker()
        except PermissionError:
            self._table.withdraw()
            self._log.warning(
                "memguard: worker (pid:%s) ends before another one serves: it may not signal "
                "the arbiter, which runs as another user",
                self._pid,
            )
            return True
        self.is_under_way = True
        return False

    def _give_up(self, now: float, why: str) -> None:
        self._table.release()
        self.is_under_way = False
        self._retry_at = now + _RETRY_SECONDS
        self._log.warning("memguard: worker (pid:%s) is not replaced now: %s", self._pid, why)


class WorkerWatch:
    """The thread of a worker that watches it. `worker` is gunicorn's."""

    def __init__(
        self, worker: Any, table: WorkerTable, entry: int, settings: WatchSettings
    ) -> None:
        self._worker = worker
        self._table = table
        self._entry = entry
        self._policy = settings.policy
        self._before_serving = worker.tmp.last_update()
        self._leak: str | None = None
        self._memory: OwnMemory | None = None
        self._monitor: MemoryMonitor | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memguard-gunicorn", daemon=True)
        self._replacement = Replacement(
            table,
            entry,
            os.getpid(),
            add_worker=lambda: os.kill(worker.ppid, signal.SIGTTIN),
            kill=lambda pid: os.kill(pid, signal.SIGKILL),
            log=worker.log,
            ready_timeout=settings.ready_timeout,
        )

    def start(self) -> None:
        """Begin; the monitor starts once the worker serves."""
        self._thread.start()

    def stop(self) -> None:
        """The worker ends."""
        self._stopping.set()
        if self._monitor is not None:
            self._monitor.stop()

    def _run(self) -> None:
        try:
            if self._comes_to_serve():
                self._table.tell_serving(self._entry, os.getpid())
                self._begin()
                self._watch()
        except Exception:  # a worker goes on without its watch
            self._worker.log.exception("memguard: the memory of this worker is not watched")

    def _comes_to_serve(self) -> bool:
        """Every class of workers tells the arbiter that it lives, first when its loop runs: after
        the start-up of an ASGI application, which `post_worker_init` comes before."""
        while not self._stopping.wait(_FIRST_HEARTBEAT_TICK):
            if self._worker.tmp.last_update() != self._before_serving:
                return True
        return False

    def _begin(self) -> None:
        self._monitor = self._new_monitor()
        self._monitor.start()
        policy = self._policy
        if policy.max_memory is None:
            return
        memory = OwnMemory(
            MemoryRule(
                policy.max_memory,
                confirm_samples=policy.confirm_samples,
                hysteresis=policy.hysteresis,
                trim_first=policy.trim_first,
            ),
            private_bytes=_core.private_bytes,
            exact_bytes=_exact_bytes,
            give_back=_give_back,
        )
        if memory.begin_bytes < policy.max_memory:
            self._memory = memory
            return
        # Another worker would begin with as much: they would be replaced for ever.
        self._worker.log.error(
            "memguard: worker (pid:%s) is not limited: max_memory is %.1f MiB, and it begins with "
            "%.1f MiB of its own; raise the limit",
            os.getpid(),
            policy.max_memory / _MIB,
            memory.begin_bytes / _MIB,
        )

    def _new_monitor(self) -> MemoryMonitor:
        policy = self._policy
        actions = ActionPolicy(
            collect=policy.trim_first,
            trim=policy.trim_first,
            recycle=policy.on_leak,
            recycle_horizon=min(_DAY, policy.forecast_horizon or 0.0),
        )
        try:
            return MemoryMonitor(scope="host", actions=actions, on_recycle=self._on_leak)
        except SegmentError as error:
            self._worker.log.warning("memguard: memory history is not shared: %s", error)
            return MemoryMonitor(actions=actions, on_recycle=self._on_leak)

    def _on_leak(self, alert: Alert) -> None:
        self._leak = f"it leaks {alert.rate_mb_per_hour:.1f} MB/h ({alert.cause})"

    def _watch(self) -> None:
        next_look_at = time.monotonic()
        tick = 0.0
        while not self._stopping.wait(tick):
            now = time.monotonic()
            is_under_way = self._replacement.is_under_way
            if self._memory is not None and now >= next_look_at and not is_under_way:
                next_look_at = now + self._policy.sample_interval
                self._memory.look()
            why = self._why()
            if why is not None and self._replacement.step(now):
                self._retire(why)
                return
            if self._replacement.is_under_way and not is_under_way:
                self._worker.log.info(
                    "memguard: worker (pid:%s) is being replaced: %s", os.getpid(), why
                )
            tick = _BUSY_TICK if self._replacement.is_under_way else self._idle_tick()

    def _why(self) -> str | None:
        excess = None if self._memory is None else self._memory.excess
        if excess is None or self._policy.max_memory is None:
            return self._leak
        return f"{excess}, max_memory is {self._policy.max_memory / _MIB:.1f} MiB"

    def _idle_tick(self) -> float:
        return min(_IDLE_TICK, self._policy.sample_interval)

    def _retire(self, why: str) -> None:
        log, patience = self._worker.log, self._worker.cfg.graceful_timeout
        log.info("memguard: worker (pid:%s) ends: %s", os.getpid(), why)
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._stopping.wait(patience):
            # gunicorn promises it and does it on its own end only; until then nobody else can be
            # replaced.
            log.warning("memguard: worker (pid:%s) is killed: graceful_timeout", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)


def _exact_bytes() -> int | None:
    footprint = memory_footprint()
    return None if footprint is None else footprint.uss_bytes


def _give_back() -> None:
    gc.collect()
    _core.malloc_trim()
