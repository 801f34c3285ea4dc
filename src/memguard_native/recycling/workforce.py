"""The workers of a service: starts them, hears them, sees them hang and end, and buries them.

It decides nothing about who is replaced: the planner does, and the supervisor has it done here.
Deaths are noticed by the pidfd or by the end of the channel, hanging by the heartbeat that the
worker's event loop leaves in the segment.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from memguard_native import segment
from memguard_native.errors import SegmentError
from memguard_native.recycling.messages import (
    NOT_UNDERSTOOD,
    ChannelClosedError,
    Frame,
    Kind,
    close_descriptor,
    open_channel,
)
from memguard_native.recycling.orphans import Orphans
from memguard_native.recycling.planner import Start, WorkerState
from memguard_native.recycling.processes import Starter, WorkerProcess, ZygoteProcess
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.recycles import Recycles
from memguard_native.recycling.relay import Relay
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace

logger = logging.getLogger("memguard_native.recycling")

# From the abort of a process that hangs, which tells where, to its death.
_ABORT_TIME = 2.0
# What the segment's ceiling leaves a worker.
_CEILING_TIME = 2.0
# The status of a dead process comes from its parent; that one may be dead as well.
_STATUS_PATIENCE = 0.1
# Ten times a second a heart beats; a request that computes may hold it up.
_FAINT = 10.0


class Watch(Protocol):
    """A selector whose keys carry what to call."""

    def add(self, file: Any, call: Callable[[], object]) -> None: ...
    def remove(self, file: Any) -> None: ...


class Workforce:
    """`on_ended(worker, why)` is called for each worker that is gone; why: in words, None: as it
    was told to."""

    def __init__(
        self,
        settings: ServiceSettings,
        starter: Starter,
        watch: Watch,
        relay: Relay,
        recycles: Recycles,
        *,
        ready_timeout: float,
        hang_timeout: float,
        on_ended: Callable[[WorkerProcess, str | None], object],
        zygotes: Callable[[], set[int]] = set,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._starter = starter
        self._watch = watch
        self._relay = relay
        self._recycles = recycles
        self._ready_timeout = ready_timeout
        self._hang_timeout = hang_timeout
        self._on_ended = on_ended
        self._segment = segment.replace_if_abandoned(segment.attach(settings.namespace))
        self._generation = 0
        self._last_slots: dict[int, int] = {}  # number: slot
        self._zygotes = zygotes
        self._orphans = Orphans(self._processes)
        self._no_hang_before = 0.0
        self._attach_at = 0.0
        self.workers: dict[int, WorkerProcess] = {}  # by generation
        self.has_been_ready = False
        """Whether any worker ever was."""

    # --- who there is ---------------------------------------------------------------------------

    @property
    def serving(self) -> list[WorkerProcess]:
        """Those that take new requests."""
        return [one for one in self.workers.values() if one.is_serving]

    @property
    def lingering(self) -> list[WorkerProcess]:
        """Those that drain, and could still answer what they are given."""
        return [
            one
            for one in self.workers.values()
            if one.state is WorkerState.draining
            and one.ready_at is not None
            and one.gone_at is None
        ]

    @property
    def is_alive(self) -> bool:
        """Whether the heart of a worker beats; those that start have no heart yet."""
        return any(
            one.gone_at is None
            and (one.ready_at is None or one.page.get("loop_heartbeat_age", 0.0) < _FAINT)
            for one in self.workers.values()
        )

    @property
    def is_gone(self) -> bool:
        """Whether no worker is left, nor anything that one has started."""
        return not self.workers and self._orphans.is_gone

    def by_number(self, number: int) -> WorkerProcess | None:
        """The one that serves, or else will serve, under this number."""
        found = [
            one
            for one in self.workers.values()
            if one.number == number and one.state is not WorkerState.draining
        ]
        return min(found, key=lambda one: (not one.is_serving, one.generation), default=None)

    def of_zygote(self, zygote: ZygoteProcess) -> list[WorkerProcess]:
        """Those that it has forked."""
        return [one for one in self.workers.values() if one.zygote is zygote]

    # --- start ----------------------------------------------------------------------------------

    def start(self, order: Start, zygote: ZygoteProcess | None, now: float) -> None:
        """Start a worker: forked by `zygote`, else spawned.

        Raises OSError: the system gives no process or descriptor; then nothing was started.
        """
        self._generation += 1
        place = WorkerPlace(
            number=order.number,
            generation=self._generation,
            predecessor=self._last_slots.get(order.number),
        )
        channel, end = open_channel()
        spawned = None
        try:
            with end:
                if zygote is None:
                    spawned = self._starter.spawn_worker(place, end)
                elif not zygote.fork(place, end):  # the end of the channel tells the rest
                    logger.warning("the zygote does not take orders: worker %d waits", place.number)
        except OSError:
            channel.close()
            raise
        worker = WorkerProcess(place, channel, replaces=order.replaces, now=now)
        worker.zygote = zygote
        self.workers[worker.generation] = worker
        self._watch.add(channel, partial(self._on_readable, worker))
        if spawned is not None:
            self.has_pid(worker, *spawned)

    def has_pid(self, worker: WorkerProcess, pid: int, pidfd: int) -> None:
        """The worker is this process; the pidfd is ours from now on."""
        if worker.pidfd is not None:
            os.close(pidfd)
            return
        worker.pid, worker.pidfd = pid, pidfd
        self._watch.add(pidfd, partial(self._on_gone, worker))

    # --- what they say --------------------------------------------------------------------------

    def _on_readable(self, worker: WorkerProcess) -> None:
        try:
            while (frame := worker.channel.receive()) is not None:
                self._on_frame(worker, frame)
                if self._relay.is_full and worker.state is WorkerState.draining:
                    self._watch.remove(worker.channel)  # until there is room: see resume()
                    return
        except ChannelClosedError:
            self._watch.remove(worker.channel)
            self._on_gone(worker)
        except NOT_UNDERSTOOD as error:
            self._end_who_talks_nonsense(worker, error)

    def _end_who_talks_nonsense(self, worker: WorkerProcess, error: Exception) -> None:
        """Something of the application may have written to a descriptor that is not its own."""
        self._watch.remove(worker.channel)
        worker.failure = f"what it sent cannot be understood ({error!r})"
        logger.error("worker %d: %s", worker.number, worker.failure, exc_info=error)
        worker.signal(signal.SIGKILL)

    def _on_frame(self, worker: WorkerProcess, frame: Frame) -> None:
        if frame.kind is Kind.connection and frame.descriptor is not None:
            self._relay.take(frame.descriptor)
        elif frame.kind is Kind.adopted:
            if frame.payload.get("lost"):
                self._relay.refused(frame.seq)
            else:
                self._relay.adopted(frame.seq)
        elif frame.kind is Kind.hello:
            self._on_hello(worker, frame)
        elif frame.kind is Kind.ready:
            self._on_ready(worker, frame)
        elif frame.kind is Kind.wish:
            self._on_wish(worker, frame)
        elif frame.kind is Kind.ended:
            worker.farewell = frame.payload
        else:
            close_descriptor(frame)

    def _on_hello(self, worker: WorkerProcess, frame: Frame) -> None:
        worker.slot = frame.payload["slot"]
        self._last_slots[worker.number] = frame.payload["slot"]
        if worker.state is WorkerState.starting:
            worker.state = WorkerState.warming
        if worker.pidfd is None:
            try:
                self.has_pid(worker, frame.arg, os.pidfd_open(frame.arg))
            except OSError:
                logger.debug("worker %d is gone already", worker.number)

    def _on_ready(self, worker: WorkerProcess, frame: Frame) -> None:
        if worker.state is WorkerState.draining:
            return
        worker.state = WorkerState.ready
        worker.ready_at = self._clock()
        worker.boot_s = round(worker.ready_at - worker.started_at, 3)
        worker.ready_bytes = frame.payload["own_bytes"]
        worker.hands_over = frame.payload["tier"] == "handover"
        self.has_been_ready = True
        logger.info(
            "worker %d is ready: process %s, generation %d, in %.2f s",
            worker.number,
            worker.pid,
            worker.generation,
            worker.boot_s,
        )

    def _on_wish(self, worker: WorkerProcess, frame: Frame) -> None:
        reason = Reason(frame.payload["reason"])
        if frame.payload.get("is_over"):
            worker.no_longer_wishes(reason)
            return
        evidence = frame.payload.get("evidence", {})
        if reason is Reason.ceiling:
            self._on_ceiling(worker, self._clock())
            return
        worker.wishes(reason, self._clock(), evidence)
        figures = ", ".join(f"{name}={value}" for name, value in evidence.items())
        logger.info("worker %d asks to be replaced: %s (%s)", worker.number, reason, figures)

    def _on_ceiling(self, worker: WorkerProcess, now: float) -> None:
        if worker.drained_for is Reason.ceiling:
            return
        self._look_at(worker)
        own_bytes = worker.page.get("own_bytes")
        worker.evidence = {"own_bytes": own_bytes, "hard_bytes": self._settings.policy.hard_memory}
        logger.error(
            "worker %d is over the ceiling of memory: %s of %s bytes",
            worker.number,
            own_bytes,
            self._settings.policy.hard_memory,
        )
        if self._settings.policy.dry_run:
            logger.warning("worker %d would be replaced: ceiling (dry run)", worker.number)
            return
        self.drain(worker, Reason.ceiling, now, timeout=_CEILING_TIME, kill_after=_CEILING_TIME)

    # --- drain ----------------------------------------------------------------------------------

    def drain(
        self,
        worker: WorkerProcess,
        reason: Reason | None,
        now: float,
        *,
        timeout: float | None = None,
        linger: float | None = None,
        kill_after: float | None = None,
    ) -> None:
        """Have it end: hand over, finish what it has within `timeout`; then it is killed.

        `linger`: there is nobody to hand over to; so long clients may come once more, to be told to
        close.
        """
        settings = self._settings
        timeout = settings.drain_timeout if timeout is None else timeout
        has_heir = any(one is not worker for one in self.serving)
        if linger is None and kill_after is None and not (has_heir and worker.hands_over):
            # So long clients may keep a connection that is to end with its next answer.
            timeout = linger = max(settings.timeout_keep_alive, timeout)
        worker.state = WorkerState.draining
        worker.drained_for, worker.drain_at = reason, now
        kill_at = now + (timeout + settings.kill_timeout if kill_after is None else kill_after)
        # A second signal may have set an earlier time already.
        worker.kill_at = kill_at if worker.kill_at is None else min(kill_at, worker.kill_at)
        worker.channel.send(
            Kind.drain,
            payload={
                "tier": "handover" if linger is None else "linger",
                "linger": timeout if linger is None else linger,
                "timeout": timeout,
            },
        )

    def tell_to_linger(self, worker: WorkerProcess, linger: float, timeout: float | None) -> None:
        """One that drains keeps what it has, and what it is given, until that is done."""
        timeout = self._settings.drain_timeout if timeout is None else timeout
        payload = {"tier": "linger", "linger": linger, "timeout": timeout}
        worker.channel.send(Kind.drain, payload=payload)

    # --- looks ----------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Ten times a second: read what workers tell in the segment, see who hangs, kill."""
        for worker in list(self.workers.values()):
            self._look_at(worker)
            worker.channel.flush()
            self._end_if_late(worker, now)
        self._orphans.look(now)

    def _processes(self) -> set[int]:
        return {one.pid for one in self.workers.values() if one.pid is not None} | self._zygotes()

    def look_at_segment(self) -> None:
        """Once a second: this process lives, and the file is the one that workers have."""
        if self._clock() >= self._attach_at:
            try:
                self._segment = segment.replace_if_abandoned(self._segment)
                if not self._segment.has_its_name():
                    self._segment = segment.attach_again(self._segment)
            except SegmentError as error:  # those who serve go on; what they tell is not seen
                logger.error("workers are not seen any more: %s", error)
                self._attach_at = self._clock() + segment.ATTACH_RETRY
        self._segment.core.beat()

    def was_late(self, now: float, gap: float) -> None:
        """This process was stopped for a while: so may have been the others.

        Nobody hangs, and everybody has as much time left as before.
        """
        self._no_hang_before = now + self._hang_timeout
        for worker in self.workers.values():
            worker.started_at += gap
            if worker.kill_at is not None:
                worker.kill_at += gap

    def _look_at(self, worker: WorkerProcess) -> None:
        if worker.slot is None:
            return
        page = self._segment.core.worker(worker.slot)
        # Else it is of the one before it, or of one that has taken the slot since.
        if page is not None and page["pid"] == worker.pid:
            worker.page = page
            worker.connections = page["connections"]

    def _end_if_late(self, worker: WorkerProcess, now: float) -> None:
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.kill_at = now + _ABORT_TIME
                worker.signal(signal.SIGKILL)
                if worker.pid is None and worker.zygote is not None:
                    # The order to fork lies with a zygote that does not move.
                    logger.error("the zygote does not move: it is killed")
                    worker.zygote.kill()
                    self.ended(worker, None)
                    return
        elif worker.ready_at is None:
            if now - worker.started_at > self._ready_timeout:
                worker.failure = f"it was not ready within {self._ready_timeout:g} s"
                logger.error("worker %d: %s", worker.number, worker.failure)
                self._abort(worker, now)
        elif self._hangs(worker, now):
            logger.error(
                "the event loop of worker %d hangs for %.1f s; its log shows where",
                worker.number,
                worker.page["loop_heartbeat_age"],
            )
            worker.drained_for, worker.failure = Reason.hang, "its event loop hung"
            worker.evidence = {"heartbeat_age": round(worker.page["loop_heartbeat_age"], 1)}
            self._abort(worker, now)
        if worker.gone_at is not None:
            self._bury_if_dead(worker, now - worker.gone_at)

    def _bury_if_dead(self, worker: WorkerProcess, gone_for: float) -> None:
        if gone_for <= _STATUS_PATIENCE:
            return
        if worker.pid is None or not _is_there(worker.pid):
            self.ended(worker, None)
        elif gone_for > self._settings.kill_timeout:
            worker.signal(signal.SIGKILL)  # it has closed its channel, and lives

    def _hangs(self, worker: WorkerProcess, now: float) -> bool:
        age = worker.page.get("loop_heartbeat_age")
        return age is not None and age > self._hang_timeout and now >= self._no_hang_before

    def _abort(self, worker: WorkerProcess, now: float) -> None:
        worker.signal(signal.SIGABRT)
        worker.kill_at = now + _ABORT_TIME

    # --- ends -----------------------------------------------------------------------------------

    def _on_gone(self, worker: WorkerProcess) -> None:
        """By its pidfd or its channel: it ends, and its status is not known yet."""
        if worker.gone_at is None:
            worker.gone_at = self._clock()
            if worker.pidfd is not None:
                self._watch.remove(worker.pidfd)

    def ended(self, worker: WorkerProcess, status: int | None) -> None:
        """It was reaped; `status` as waitpid() tells it."""
        if self.workers.pop(worker.generation, None) is None:
            return
        try:  # what it has said before, above all which connections are its own
            while (frame := worker.channel.receive()) is not None:
                self._on_frame(worker, frame)
        except (ChannelClosedError, *NOT_UNDERSTOOD):
            pass
        self._relay.lost(worker.generation)
        self._watch.remove(worker.channel)
        if worker.pidfd is not None:
            self._watch.remove(worker.pidfd)
        worker.close()
        self.end_children(worker)
        self._orphans.worker_ended(self._clock())
        self._on_ended(worker, _why(worker, status))

    def end_children(self, worker: WorkerProcess) -> None:
        """What it has started ends with it; what does not is killed two seconds later."""
        if worker.pid is not None:
            self._orphans.end_group(worker.pid, self._clock())

    def end_children_of(self, zygote: ZygoteProcess) -> None:
        """As of a worker: what the application has started at its import."""
        now = self._clock()
        self._orphans.end_group(zygote.pid, now)
        self._orphans.worker_ended(now)

    def child_ended(self, pid: int) -> None:
        """A child that is no worker is about to be reaped."""
        self._orphans.child_ended(pid)

    def spare_children(self) -> None:
        """What this process has started otherwise is its owner's."""
        self._orphans.spare_children()

    def resume(self) -> None:
        """The relay has room again: hear those that had to wait."""
        for worker in self.workers.values():
            if worker.state is WorkerState.draining and worker.gone_at is None:
                self._watch.add(worker.channel, partial(self._on_readable, worker))

    def close(self) -> None:
        """Workers that there still are see that they are alone, and end by themselves."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


def _is_there(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _why(worker: WorkerProcess, status: int | None) -> str | None:
    farewell = worker.farewell or {}
    if "failed" in farewell:
        return str(farewell["failed"])
    if worker.failure is not None:
        return worker.failure
    if worker.state is WorkerState.draining:
        return None
    if status is None:
        return "it is gone"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by signal {number} ({signal.strsignal(number)})"
    return f"it ended with exit code {os.waitstatus_to_exitcode(status)}"
