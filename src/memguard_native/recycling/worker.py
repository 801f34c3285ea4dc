"""A worker: one process with one uvicorn server, which asks to be replaced and goes on serving.

It never ends by itself because of a limit. It tells the supervisor what it wants, and ends when it
is told to drain. What people and the supervisor want to know of it lies in its slot of the segment,
written ten times a second by the event loop itself: an old heartbeat is a loop that hangs.

For applications there are `count()`, `ask()` and `load_from()`. Without a supervisor they do
nothing, so an application need not know what it runs under. Any thread may call them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from memguard_native import _core, segment
from memguard_native.errors import ConfigError, MemguardError
from memguard_native.recycling.children import descendants, other_members
from memguard_native.recycling.logs import tell_where_it_hangs
from memguard_native.recycling.messages import (
    Channel,
    ChannelClosedError,
    Frame,
    Kind,
    close_descriptor,
    encode,
    fields_of,
    shortened,
)
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace
from memguard_native.recycling.worker_memory import WorkerMemory
from memguard_native.recycling.worker_wishes import WorkerWishes

if TYPE_CHECKING:
    from memguard_native.recycling.loading import Objects
    from memguard_native.recycling.server import RecyclingServer

logger = logging.getLogger("memguard_native.recycling")

_BEAT_INTERVAL = 0.1
_BEATS_PER_SECOND = 10
# Idle connections of a worker whose heirs are unknown: clients that send within this time are told
# to close.
_ORPHAN_LINGER = 2.0
_STUCK = 30.0
_WORSE_SCORE = 200  # the kernel is to kill a worker, not the supervisor


def count(*, inputs: int = 0, tokens: int = 0) -> None:
    """So many inputs and tokens were worked on: for `max_inputs` and `max_tokens` of the policy.

    Raises ConfigError: not an int >= 0.
    """
    for name, value in (("inputs", inputs), ("tokens", tokens)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(name, value, "must be an int >= 0")
    if _current is not None:
        _current.wishes.count(inputs, tokens)


def ask(reason: str = "backend") -> None:
    """This process is to be replaced: "backend" if what it computes with is sick, or "manual"."""
    if reason not in (Reason.backend, Reason.manual):
        raise ConfigError("reason", reason, "must be one of 'backend', 'manual'")
    if _current is not None:
        _current.wishes.ask_from_any_thread(Reason(reason))


def load_from(read: Callable[[], float]) -> None:
    """The memory monitor of this worker takes `read()` for its load, not the requests in flight.

    Call it before the application has started up.
    """
    if _current is not None:
        _current.memory.read_load = read


def is_supervised() -> bool:
    """Whether this process is a worker of a supervisor, which also watches its memory."""
    return _current is not None


_current: Worker | None = None


class Worker:
    """The worker of this process; `objects` is what its template has loaded, None: it loads."""

    def __init__(
        self,
        channel: Channel,
        listener: socket.socket,
        settings: ServiceSettings,
        place: WorkerPlace,
        objects: Objects | None = None,
    ) -> None:
        global _current
        self._channel = channel
        self._listener = listener
        self._settings = settings
        self._place = place
        self._objects = objects
        self._started_at = time.monotonic()
        self._unready: str | None = None
        self._beats = 0
        self._connection_seq = 0
        self._is_alone = False
        self._attach_at = 0.0
        self._state = "starting"
        self._watchdog: _core.Watchdog | None = None
        self.wishes = WorkerWishes(channel, settings.policy)
        self.memory = WorkerMemory(
            settings, place, self.wishes.ask_from_any_thread, self.wishes.withdraw
        )
        _current = self

    @property
    def _is_ready(self) -> bool:
        return self.wishes.ready_at is not None

    # --- from start to end ----------------------------------------------------------------------

    def run(self) -> int:
        """Serve until drained; the exit code of the process."""
        _prepare_process()
        try:
            self._attach()
            self._watch_supervisor()
            self._server = self.wishes.server = self._new_server()
            self._run_loop()
        except ConfigError as error:
            return self._fail(error, config_error=fields_of(error))
        except SystemExit:  # uvicorn's way to say that the application's start-up failed
            if self._is_ready:
                raise
            return self._fail("the application's start-up failed; its log says why")
        except MemguardError as error:  # it says itself what is wrong, and what to do
            return self._fail(error)
        except Exception as error:
            logger.exception("worker %d failed", self._place.number)
            return self._fail(error)
        finally:
            self.memory.stop()  # the watchdog goes on: the end can hang as well
        server = self._server
        if self._is_alone:
            self._signal_started(signal.SIGKILL)
        self._set_state("ended")
        self._channel.send(
            Kind.ended,
            payload={
                "handed_over": server.handed_over,
                "lingered": server.lingered,
                "aborted": server.aborted,
                **self.wishes.work(),
            },
        )
        return 0

    def _fail(self, error: object, **more: Any) -> int:
        text = (
            str(error)
            if isinstance(error, (MemguardError, str))
            else f"{type(error).__name__}: {error}"
        )
        self._channel.send(Kind.ended, payload={"failed": shortened(text, 1000), **more})
        return 1

    def _attach(self) -> None:
        self._segment = segment.attach(self._settings.namespace)
        self._begin_page()

    def _begin_page(self) -> None:
        core = self._segment.core
        if not core.begin_worker(self._place.number, predecessor=self._place.predecessor):
            # Requests are served all the same.
            logger.warning(
                "worker %d is not seen, nor whether it hangs: all %d slots of %s are taken, or "
                "they count other process numbers; set MEMGUARD_NAMESPACE to another name for "
                "each service and container",
                self._place.number,
                _core.SEGMENT_SLOTS,
                self._segment.path,
            )
        core.set_worker_state(self._state)
        self.memory.segment = self._segment
        self._channel.send(Kind.hello, arg=os.getpid(), payload={"slot": core.slot})

    def _set_state(self, state: str) -> None:
        self._state = state
        self._segment.core.set_worker_state(state)

    def _watch_supervisor(self) -> None:
        self._watchdog = _core.Watchdog(
            control_fd=self._channel.fileno(),
            message=encode(Kind.wish, payload={"reason": Reason.ceiling}),
            supervisor_pidfd=os.pidfd_open(self._settings.supervisor),
            grace=self._settings.drain_timeout + self._settings.kill_timeout,
            segment=self._segment.core,
        )
        self._watchdog.start()
        self.memory.watchdog = self._watchdog

    def _new_server(self) -> RecyclingServer:
        # Here and not above: uvicorn is heavy, and the supervisor imports what is light of this.
        from memguard_native.recycling.loading import load_objects, server_config
        from memguard_native.recycling.server import RecyclingServer

        objects = load_objects(self._settings) if self._objects is None else self._objects
        config = server_config(self._settings, objects.app)
        self._warm_up = objects.warm_up
        return RecyclingServer(
            config,
            hand_out=self._hand_out,
            on_startup=self._on_startup,
            on_request=self.wishes.on_request,
            on_started=self._on_started,
        )

    def _run_loop(self) -> None:
        from memguard_native.recycling.loading import new_runner

        with new_runner(self._server.config) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.wishes.loop = loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._on_frames)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        self._beat(loop)
        await self._server.serve([self._listener])
        loop.remove_reader(self._channel.fileno())

    async def _on_startup(self) -> None:
        from memguard_native.recycling.asgi import WorkerApplication

        self._set_state("warming")
        # Now, because the application may have said what its load is while it started up.
        requests = self.memory.monitor.load.requests
        config = self._server.config
        application: Any = config.loaded_app
        config.loaded_app = WorkerApplication(
            application,
            begin=requests.begin,
            end=requests.end,
            readiness=lambda: self._unready,
            liveness=self._why_not_alive,
        )
        if self._warm_up is not None:
            await self._warm_up(self._server)
        await self.memory.begin()

    def _on_started(self) -> None:
        self.wishes.ready_at = ready_at = time.monotonic()
        self._set_state("ready")
        self._channel.send(
            Kind.ready,
            payload={
                "boot_s": round(ready_at - self._started_at, 4),
                "tier": self._server.tier,
                **self.memory.figures(),
            },
        )
        self.memory.start()

    # --- on the event loop ----------------------------------------------------------------------

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(_BEAT_INTERVAL, self._beat, loop)
        self._segment.core.beat_loop()
        self._segment.core.tell_work(**self.wishes.work())
        self._channel.flush()
        self._beats += 1
        if self._beats % _BEATS_PER_SECOND == 0:
            self._on_second()

    def _on_second(self) -> None:
        # Removed or replaced: as breakers do.
        if not self._segment.has_its_name() and time.monotonic() >= self._attach_at:
            self._attach_again()
        if self._is_ready:
            self.memory.on_second()
            self.wishes.check_limits()

    def _attach_again(self) -> None:
        try:
            self._segment = segment.attach_again(self._segment)
            self._begin_page()
        except MemguardError as error:  # requests are served all the same
            logger.error("worker %d is not seen any more: %s", self._place.number, error)
            self._attach_at = time.monotonic() + segment.ATTACH_RETRY

    def _on_frames(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                self._on_frame(frame)
        except ChannelClosedError:
            self._on_supervisor_gone()

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.connection:
            self._adopt(frame)
        elif frame.kind is Kind.drain:
            self._drain(**frame.payload)
        elif frame.kind is Kind.settings:
            self._unready = frame.payload["unready"]
        elif frame.kind is Kind.exit:
            os._exit(0)
        else:
            close_descriptor(frame)

    def _adopt(self, frame: Frame) -> None:
        if frame.descriptor is None:  # this process has as many as it may have
            self._channel.send(Kind.adopted, seq=frame.seq, payload={"lost": True})
            return

        def accepted() -> None:
            # Before a byte of it is read, and never kept back: if this process died meanwhile,
            # another worker would get a stream that was read from.
            if not self._channel.send_now(Kind.adopted, seq=frame.seq):
                raise BlockingIOError

        self._server.adopt(frame.descriptor, accepted)

    def _hand_out(self, descriptor: int) -> bool:
        self._connection_seq += 1
        try:
            return self._channel.send_descriptor(
                Kind.connection, descriptor, seq=self._connection_seq
            )
        except ChannelClosedError:
            return False

    def _drain(self, tier: str, linger: float, timeout: float) -> None:
        self._set_state("draining")
        self._server.drain(
            tier=tier, linger=linger, deadline=asyncio.get_running_loop().time() + timeout
        )

    def _on_terminate(self) -> None:
        # systemd and people signal workers as well. The supervisor ends them, one by one.
        if not self._is_alone:
            self.wishes.ask(Reason.manual)

    def _on_supervisor_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._is_alone = True
        self._unready = "the supervisor is gone"
        logger.error("the supervisor is gone: worker %d finishes its requests", self._place.number)
        self._drain("linger", _ORPHAN_LINGER, self._settings.drain_timeout)
        self._signal_started(signal.SIGTERM)

    def _signal_started(self, number: signal.Signals) -> None:
        """What this process has started, in its group or in a session of its own."""
        ours = os.getpid()
        for pid in {*other_members(ours), *descendants(ours)}:
            with suppress(OSError):  # it has just ended, or has become another user's
                os.kill(pid, number)

    def _why_not_alive(self) -> str | None:
        for one in self._segment.core.workers():
            if one["pid"] == self._settings.supervisor and one["heartbeat_age"] > _STUCK:
                return f"the supervisor has not moved for {one['heartbeat_age']:.0f} s"
        return None


def _prepare_process() -> None:
    """A process group of its own, with what it starts; what a worker is to be for the kernel."""
    import resource

    os.setpgid(0, 0)
    tell_where_it_hangs()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = min(1000, int(file.read()) + _WORSE_SCORE)
            file.seek(0)
            file.write(str(score))
    except OSError:
        logger.debug("oom_score_adj cannot be set", exc_info=True)
