"""The supervisor: owns the listener, imports no application, and keeps N workers serving.

One thread, one loop over a selector: what happens is heard at once, all else is looked at ten times
a second. It decides by `recycling.planner`, acts through `recycling.workforce`, and is told what to
do by signals and by its control socket. Handlers of signals only write to a pipe.

    SIGTERM, SIGINT  drain all and end; a second one: within a second
    SIGHUP           replace all workers one by one; with a zygote, load the application anew first
    SIGTTIN, SIGTTOU one worker more, or one less
    SIGUSR1          write a line of JSON with all that is known to stderr
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from memguard_native import _core, segment
from memguard_native.errors import ConfigError
from memguard_native.recycling.answers import answer
from memguard_native.recycling.children import other_members
from memguard_native.recycling.control import ControlServer
from memguard_native.recycling.group import read_group
from memguard_native.recycling.listener import url_of
from memguard_native.recycling.messages import Frame, Kind, close_descriptor
from memguard_native.recycling.planner import Drain, Planner, Start, WorkerState
from memguard_native.recycling.processes import Starter, WorkerProcess, ZygoteProcess
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.recycles import Recycles
from memguard_native.recycling.relay import Relay, descriptor_capacity
from memguard_native.recycling.selection import Selection, SignalPipe
from memguard_native.recycling.service_manager import ServiceManager
from memguard_native.recycling.settings import MOST_PROCESSES, ServiceSettings
from memguard_native.recycling.template import Template
from memguard_native.recycling.workforce import Workforce
from memguard_native.recycling.zygote import GivenObjects

logger = logging.getLogger("memguard_native.recycling")

_TICK = 0.1
_RETRY = 0.001  # for descriptors that found a full queue
_LATE = 1.0
_LINGER = 2.0
_LAST_CALL = 1.0
_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGCHLD,
)


class Supervisor:
    """Runs a service until it is told to end.

    Args:
        settings: what its processes are told.
        listener: listens already; every process inherits it.
        given: the application as an object; None: by its import string.
        workers, start, ready_timeout, hang_timeout, shutdown_delay, overlap, on_ready: see
            `recycling.run`.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        listener: socket.socket,
        given: GivenObjects | None,
        *,
        workers: int,
        start: str,
        ready_timeout: float,
        hang_timeout: float,
        shutdown_delay: float,
        overlap: bool,
        on_ready: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._listener = listener
        self.clock = clock
        self.wanted = workers
        self._most_workers = MOST_PROCESSES - settings.policy.max_concurrent
        self._shutdown_delay = shutdown_delay
        self._on_ready = on_ready
        self._selection = Selection()
        starter = Starter(settings, listener, given)
        # By their process numbers: zygotes that died by chance, whose workers still live, and may
        # need what the application has started at its import.
        self._lost_zygotes: dict[int, ZygoteProcess] = {}
        # Before there is anything that its child must not have.
        self.template = Template(
            starter,
            self._selection,
            start=start,
            load_timeout=ready_timeout,
            on_frame=self._on_zygote_frame,
            on_gone=self._on_zygote_gone,
            clock=clock,
        )
        self._relay = Relay(capacity=descriptor_capacity())
        self.recycles = Recycles()
        try:
            self.workforce = Workforce(
                settings,
                starter,
                self._selection,
                self._relay,
                self.recycles,
                ready_timeout=ready_timeout,
                hang_timeout=hang_timeout,
                on_ended=self._on_ended,
                zygotes=lambda: {*self.template.pids(), *self._lost_zygotes},
                clock=clock,
            )
        except BaseException:  # there is no shared memory to be had
            self.template.close()
            raise
        self._planner = Planner(settings.policy, overlap=overlap)
        self._manager = ServiceManager()
        self.url = url_of(listener, is_tls="ssl_certfile" in settings.uvicorn_options)
        self.started_at = self._last_tick = self._last_turn = clock()
        self._is_short = True
        self._ticks = 0
        self._group = read_group()
        self._has_been_complete = False
        self._stop_at: float | None = None
        self._zygotes_end_by: float | None = None
        self._is_stopping = False
        self._exit_code: int | None = None
        self._final_code = 0
        self._failure: ConfigError | None = None

    def run(self) -> int:
        """Serve until the end; the exit code: 0, or 1 if the service could not go on.

        Raises ConfigError: the application, or an option, is not what it should be.
        """
        _core.become_subreaper()
        with ExitStack() as stack:
            stack.callback(self._close)
            signals = SignalPipe(self._selection, _SIGNALS, self._on_signal)
            stack.callback(signals.close)
            self._control = ControlServer(
                segment.directory(), self.settings.namespace, self._answer
            )
            stack.callback(self._control.close)
            self._control.register(self._selection.selector)
            self._manager.keep_listener(self._listener.fileno())
            logger.info(
                "serving %s at %s with %d workers (process %d)",
                self.settings.app,
                self.url,
                self.wanted,
                os.getpid(),
            )
            while self._exit_code is None:
                self._turn()
        if self._failure is not None:
            raise self._failure
        return self._exit_code

    def _close(self) -> None:
        self._listener.close()
        self.recycles.aborted += self._relay.abandon()
        self.workforce.close()
        self.template.close()
        self._selection.close()

    # --- the loop -------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._selection.wait(_RETRY if self._relay.may_send_to(self._adopters) else _TICK)
        now = self.clock()
        self._measure_gap(now)
        if now - self._last_tick >= _TICK:
            self._tick(now)
        self._relay.pump(self._adopters)
        if not self._relay.is_full:
            self.workforce.resume()
        if self._is_ending:
            self._go_on_ending(now)
        else:
            self._plan(now)

    @property
    def _is_ending(self) -> bool:
        """Whether all drain; before that, for `shutdown_delay`, all goes on as ever."""
        return self._is_stopping and self._stop_at is None

    @property
    def _adopters(self) -> list[WorkerProcess]:
        """Who takes connections over; at the end of the service those who linger."""
        serving = self.workforce.serving
        return self.workforce.lingering if self._is_stopping and not serving else serving

    def _measure_gap(self, now: float) -> None:
        """How long there are too few: to the turn, because a fork is over within one look."""
        elapsed, self._last_turn = now - self._last_turn, now
        was_short, self._is_short = self._is_short, len(self.workforce.serving) < self.wanted
        if was_short and self._has_been_complete and not self._is_stopping:
            self.recycles.capacity_gap_seconds += elapsed

    def _tick(self, now: float) -> None:
        elapsed, self._last_tick = now - self._last_tick, now
        if elapsed > _LATE:
            self.workforce.was_late(now, elapsed)
            self.template.was_late(elapsed)
        self._ticks += 1
        self._relay.try_all_again()
        self._control.expire(now)
        self.workforce.look(now)
        self.template.look(now)
        if self._ticks % 10 == 0:
            self.workforce.look_at_segment()
            self._end_what_lost_zygotes_started()
            self._group = read_group()
            self._tell_manager()
        serving = len(self.workforce.serving)
        if serving >= self.wanted and not self._has_been_complete:
            self._has_been_complete = True
            logger.info("all %d workers are ready", self.wanted)
            self._manager.ready()
            self._call_on_ready()
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_at = None
            self._drain_all(now)

    def _call_on_ready(self) -> None:
        if self._on_ready is None:
            return
        try:
            self._on_ready(self.url)
        except Exception:  # the service is there, whatever its owner makes of that
            logger.exception("on_ready failed")
        self.workforce.spare_children()

    def _tell_manager(self) -> None:
        if self.workforce.is_alive:
            self._manager.watchdog()
        elif not self._has_been_complete:
            self._manager.extend_timeout(30.0)
        serving = len(self.workforce.serving)
        recycles = sum(self.recycles.by_reason.values())
        self._manager.status(f"{serving} of {self.wanted} workers ready, {recycles} replaced")

    def _plan(self, now: float) -> None:
        if not self.template.can_start:
            return
        # Those that are gone as well, until it is known how: a crash may have to wait.
        views = [one.view for one in self.workforce.workers.values()]
        plan = self._planner.decide(now, self.wanted, views, self._group)
        for note in plan.notes:
            logger.warning("%s", note.text, extra={"event": f"recycling.{note.kind}"})
            self.recycles.only_told += note.kind == "dry_run"
        for action in plan.actions:
            if self._is_ending:  # the first of them could not be done
                return
            if isinstance(action, Start):
                self._start(action, now)
            else:
                self._drain(action, now)
        if plan.is_hopeless:
            self._give_up("workers end again and again, and none is ready: see what they logged")

    def _start(self, order: Start, now: float) -> None:
        try:
            self.workforce.start(order, self.template.zygote, now)
        except OSError as error:  # no process, no descriptor, no memory: later there may be
            logger.error("worker %d could not be started: %s", order.number, error)
            self._planner.ended(order.number, now, crashed=True, was_ready=False, age=0.0)
            if not self.workforce.has_been_ready:
                self._give_up(f"the first worker could not be started: {error}")
            return
        if self._is_stopping:
            self._tell_unready()

    def _drain(self, order: Drain, now: float) -> None:
        worker = self.workforce.workers[order.generation]
        self.workforce.drain(worker, order.reason, now)

    # --- workers that ended ---------------------------------------------------------------------

    def _on_ended(self, worker: WorkerProcess, why: str | None) -> None:
        now = self.clock()
        was_told = worker.state is WorkerState.draining
        if why is not None:
            logger.error("worker %d (process %s) ended: %s", worker.number, worker.pid, why)
        self.recycles.count(worker)
        if self._is_ending:
            return
        self._planner.ended(
            worker.number,
            now,
            # A ceiling that the next one meets again is no better than a crash.
            crashed=why is not None or worker.drained_for is Reason.ceiling,
            was_ready=worker.ready_at is not None,
            age=now - (worker.ready_at or worker.started_at),
        )
        if worker.ready_at is None and not self.workforce.has_been_ready:
            self._fail_to_start(worker, why)
        elif worker.ready_at is None and worker.replaces in self.workforce.workers:
            logger.error("worker %d stays, and its replacement is tried again", worker.number)
        elif worker.ready_at is not None and not (was_told and worker.drained_for is None):
            reason = worker.drained_for or Reason.crash
            successor = self.workforce.by_number(worker.number)
            record = self.recycles.add(worker, successor, reason, now)
            logger.info("%s", record, extra={"event": "worker.recycled", **_fields(record)})

    def _fail_to_start(self, worker: WorkerProcess, why: str | None) -> None:
        config_error = (worker.farewell or {}).get("config_error")
        if config_error is not None:
            self._fail_with(config_error)
        else:
            self._give_up(f"the first worker could not start: {why or 'it ended'}")

    def _fail_with(self, config_error: list[str]) -> None:
        field, value, allowed = config_error
        self._refuse(ConfigError(field, _Shown(value), allowed))

    def _refuse(self, error: ConfigError) -> None:
        """`run()` raises it once all have ended."""
        if self._exit_code is None and not self._is_stopping:
            self._failure = error
            self._end_all()

    def _give_up(self, why: str) -> None:
        if self._exit_code is None and not self._is_stopping:
            logger.error("%s", why)
            self._end_all()

    def _end_all(self) -> None:
        self._final_code = 1
        self._is_stopping = True
        self._drain_all(self.clock(), timeout=0.0)

    # --- the zygote -----------------------------------------------------------------------------

    def _on_zygote_frame(self, zygote: ZygoteProcess, frame: Frame) -> None:
        if frame.kind is Kind.loaded:
            self._on_loaded(zygote, frame)
            return
        worker = self.workforce.workers.get(frame.seq)
        if frame.kind is Kind.forked and frame.descriptor is not None:
            if worker is None:
                close_descriptor(frame)
            else:
                self.workforce.has_pid(worker, frame.arg, frame.descriptor)
        elif frame.kind is Kind.reaped and worker is not None:
            self.workforce.ended(worker, frame.arg)

    def _on_zygote_gone(self, zygote: ZygoteProcess, by_chance: bool) -> None:
        self._lost_zygotes[zygote.pid] = zygote
        if not by_chance:
            self._end_what_lost_zygotes_started()

    def _end_what_lost_zygotes_started(self) -> None:
        """Once no worker of theirs is left."""
        for zygote in list(self._lost_zygotes.values()):
            if not self.workforce.of_zygote(zygote):
                del self._lost_zygotes[zygote.pid]
                self.workforce.end_children_of(zygote)
            elif not other_members(zygote.pid):  # then its number may be another's some day
                del self._lost_zygotes[zygote.pid]

    def _on_loaded(self, zygote: ZygoteProcess, frame: Frame) -> None:
        if "config_error" in frame.payload and not self.workforce.has_been_ready:
            self._fail_with(frame.payload["config_error"])
        elif "failed" in frame.payload:
            self._on_zygote_failed(zygote, str(frame.payload["failed"]))
        elif (hazard := _hazard(frame)) is None:
            if self.template.use(zygote, frame.payload):
                self._renew_workers({"signal": "SIGHUP"})
                self._manager.ready()
        else:
            self._on_unsafe(zygote, hazard)

    def _on_zygote_failed(self, zygote: ZygoteProcess, why: str) -> None:
        self.template.drop(zygote)
        if not self.workforce.has_been_ready:
            self._give_up(f"the application could not be loaded: {why}")
        else:
            logger.error("the application could not be loaded anew, workers stay: %s", why)
            self._manager.ready()

    def _on_unsafe(self, zygote: ZygoteProcess, hazard: str) -> None:
        if self.template.may_spawn:
            logger.warning(
                "workers are spawned, not forked: %s. Start threads in the application's lifespan "
                "(of compute libraries: OPENBLAS_NUM_THREADS=1), or say start='spawn'",
                hazard,
            )
            if self.template.spawn_instead(zygote):
                self._renew_workers({"signal": "SIGHUP"})
                self._manager.ready()
            return
        if self.workforce.has_been_ready:
            self._on_zygote_failed(zygote, f"it cannot be forked any more: {hazard}")
            return
        self.template.drop(zygote)
        allowed = f"must be 'auto' or 'spawn', with an import string for the application: {hazard}"
        self._refuse(ConfigError("start", "zygote", allowed))

    # --- what people want -----------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(self.clock())
        elif number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGUSR1:
            self._tell_all()
        elif number == signal.SIGHUP:
            self._renew()
        elif number == signal.SIGTTIN:
            self.wanted = min(self._most_workers, self.wanted + 1)
        elif number == signal.SIGTTOU:
            self.wanted = max(1, self.wanted - 1)

    def _tell_all(self) -> None:
        line = json.dumps(self._answer({"command": "workers"}))
        with suppress(OSError, ValueError, AttributeError):  # nobody reads stderr, or there is none
            print(line, file=sys.stderr, flush=True)

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            # Not reaped yet, so nobody else can have its number: the time to signal its group.
            worker = next(
                (one for one in self.workforce.workers.values() if one.pid == found.si_pid), None
            )
            if worker is not None:
                self.workforce.end_children(worker)
            else:
                self.workforce.child_ended(found.si_pid)
            _, status = os.waitpid(found.si_pid, 0)
            if worker is not None:
                self.workforce.ended(worker, status)
            else:
                self.template.reaped(found.si_pid)

    def _renew(self) -> None:
        if self._is_stopping:
            return
        logger.info("SIGHUP: all workers are to be replaced, one after the other")
        if not self.template.can_load_again:
            logger.warning("the application is an object: its code is not loaded anew")
        self._manager.reloading()
        if self.template.renew():
            return
        self._renew_workers({"signal": "SIGHUP"})
        self._manager.ready()

    def _renew_workers(self, evidence: dict[str, Any]) -> None:
        for worker in self.workforce.workers.values():
            worker.wishes(Reason.manual, self.clock(), evidence)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return answer(self, request)

    # --- the end --------------------------------------------------------------------------------

    def _stop(self, now: float) -> None:
        if self._is_stopping:
            logger.warning("told to end a second time: workers have %g s", _LAST_CALL)
            if self._stop_at is not None:  # the delay before the drain
                self._stop_at = None
                self._drain_all(now, timeout=_LAST_CALL)
            for worker in self.workforce.workers.values():
                worker.kill_at = now + _LAST_CALL
            return
        logger.info("told to end")
        self._manager.stopping()
        self._is_stopping = True
        self._tell_unready()
        self._stop_at = now + self._shutdown_delay

    def _tell_unready(self) -> None:
        for worker in self.workforce.workers.values():
            worker.channel.send(Kind.settings, payload={"unready": "the service is ending"})

    def _drain_all(self, now: float, timeout: float | None = None) -> None:
        for worker in list(self.workforce.workers.values()):
            if worker.ready_at is None:
                worker.channel.send(Kind.exit)
                worker.state = WorkerState.draining
                worker.kill_at = now + self.settings.kill_timeout
            elif worker.state is not WorkerState.draining:
                self.workforce.drain(worker, None, now, timeout=timeout, linger=_LINGER)
            else:
                # It was giving its connections away, and there is nobody left to take them.
                self.workforce.tell_to_linger(worker, _LINGER, timeout)
        self._listener.close()
        self.template.end()

    def _go_on_ending(self, now: float) -> None:
        self._end_what_lost_zygotes_started()
        if not self.workforce.is_gone:
            return
        if self._zygotes_end_by is None:
            self._zygotes_end_by = now + self.settings.kill_timeout
        if self.template.is_gone or now >= self._zygotes_end_by:
            self._exit_code = self._final_code


class _Shown(str):
    """A value of another process, as it was shown there."""

    def __repr__(self) -> str:
        return str(self)


def _hazard(frame: Frame) -> str | None:
    """Why a process in this state cannot be forked safely; None: it can."""
    threads = frame.payload["threads"]
    if threads:
        return f"the application has started threads ({', '.join(threads[:5])})"
    if frame.payload["has_cuda"]:
        return "torch has initialised CUDA, which does not survive a fork"
    return None


def _fields(record: Any) -> dict[str, Any]:
    return {f"recycle_{name}": value for name, value in record.to_dict().items()}
