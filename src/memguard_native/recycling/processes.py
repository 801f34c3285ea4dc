"""The processes of a service as the supervisor sees them, and how they are started.

One thread. Processes are started by the main thread only: the kernel's promise to end them with
their parent means the thread that has started them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from memguard_native.recycling.messages import Channel, ChannelClosedError, Kind, open_channel
from memguard_native.recycling.planner import WorkerState, WorkerView
from memguard_native.recycling.reasons import Reason, comes_before
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace
from memguard_native.recycling.zygote import GivenObjects, Zygote, end_process_after

# Where a spawned process finds its channel, the listener and the settings: see __main__.
_TARGETS = (3, 4, 5)
_FREE = 10


class WorkerProcess:
    """A worker from its start to its end."""

    def __init__(
        self, place: WorkerPlace, channel: Channel, *, replaces: int | None, now: float
    ) -> None:
        self.number = place.number
        self.generation = place.generation
        self.channel = channel
        self.replaces = replaces
        self.started_at = now
        self.state = WorkerState.starting
        self.ready_at: float | None = None
        self.boot_s: float | None = None
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.slot: int | None = None
        self.page: Mapping[str, Any] = {}
        """Its slot of the segment, as of the last look."""
        self.connections = 0
        self.ready_bytes: int | None = None
        self.hands_over = False
        self.wish: Reason | None = None
        self.wish_at: float | None = None
        self.evidence: Mapping[str, Any] = {}
        self.drained_for: Reason | None = None
        self.drain_at: float | None = None
        self.kill_at: float | None = None
        self.private_before: int | None = None
        self.farewell: Mapping[str, Any] | None = None
        """What it said before it ended."""
        self.failure: str | None = None
        """Why we have ended it, if not to replace it."""
        self.gone_at: float | None = None
        """When its end was seen, before its status is known."""
        self.zygote: ZygoteProcess | None = None

    @property
    def is_serving(self) -> bool:
        """Whether it takes new requests."""
        return self.state is WorkerState.ready and self.gone_at is None

    @property
    def view(self) -> WorkerView:
        """For the planner."""
        return WorkerView(
            number=self.number,
            generation=self.generation,
            state=self.state,
            started_at=self.started_at,
            ready_at=self.ready_at,
            asked=self.wish,
            asked_at=self.wish_at,
            replaces=self.replaces,
            own_bytes=self.page.get("own_bytes"),
            ready_bytes=self.ready_bytes,
            is_gone=self.gone_at is not None,
        )

    def wishes(self, reason: Reason, now: float, evidence: Mapping[str, Any]) -> None:
        """It is to be replaced; which reason counts: `reasons.comes_before`."""
        if comes_before(reason, self.wish):
            self.wish, self.wish_at, self.evidence = reason, now, evidence

    def no_longer_wishes(self, reason: Reason) -> None:
        """That reason has vanished; one that somebody else had meanwhile stays."""
        if self.wish == reason:
            self.wish, self.wish_at, self.evidence = None, None, {}

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.pid is not None:
                os.kill(self.pid, number)

    def close(self) -> None:
        """Nothing more comes from it."""
        self.channel.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class ZygoteProcess:
    """A zygote; `loaded` is what it has told once the application was imported."""

    def __init__(self, channel: Channel, pid: int, now: float) -> None:
        self.channel = channel
        self.pid = pid
        self.started_at = now
        self.loaded: Mapping[str, Any] | None = None
        self.failure: str | None = None
        """Why we have ended it."""
        self.is_gone = False

    @property
    def can_fork(self) -> bool:
        """Whether workers can be had of it."""
        return self.loaded is not None and not self.is_gone

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            if not self.is_gone:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """It ends now."""
        self.signal(signal.SIGKILL)

    def fork(self, place: WorkerPlace, end: socket.socket) -> bool:
        """Have it fork a worker with this end of a channel; False: it cannot be told.

        It may be gone, and nobody has noticed yet.
        """
        payload = {
            "number": place.number,
            "generation": place.generation,
            "predecessor": place.predecessor,
        }
        try:
            return self.channel.send_descriptor(
                Kind.fork, end.fileno(), seq=place.generation, payload=payload
            )
        except ChannelClosedError:
            return False


class Starter:
    """Starts processes that inherit `listener` and know `settings`."""

    def __init__(
        self, settings: ServiceSettings, listener: socket.socket, given: GivenObjects | None
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._given = given

    @property
    def can_spawn(self) -> bool:
        """Whether a fresh process can know the application: not where it is an object."""
        return self._given is None

    def spawn_worker(self, place: WorkerPlace, end: socket.socket) -> tuple[int, int]:
        """The process number and pidfd of a fresh worker that has this end of a channel.

        Raises OSError.
        """
        predecessor = "-" if place.predecessor is None else str(place.predecessor)
        pid = self._spawn(end, "worker", str(place.number), str(place.generation), predecessor)
        try:
            return pid, os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so it is this one
            raise

    def start_zygote(self, now: float) -> ZygoteProcess:
        """A zygote, which now loads the application. Raises OSError."""
        channel, end = open_channel()
        try:
            with end:
                pid = (
                    self._spawn(end, "zygote")
                    if self.can_spawn
                    else self._fork_zygote(channel, end)
                )
        except OSError:
            channel.close()
            raise
        return ZygoteProcess(channel, pid, now)

    def _spawn(self, end: socket.socket, role: str, *place: str) -> int:
        with ExitStack() as stack:

            def kept(descriptor: int) -> int:
                stack.callback(os.close, descriptor)
                return descriptor

            settings = kept(self._settings.to_file())
            # Above the targets, which may be the numbers of some that are still needed.
            sources = [
                kept(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _FREE))
                for one in (end.fileno(), self._listener.fileno(), settings)
            ]
            actions: list[Any] = [
                (os.POSIX_SPAWN_DUP2, source, target)
                for source, target in zip(sources, _TARGETS, strict=True)
            ]
            arguments = [sys.executable, "-m", "memguard_native.recycling", role, *place]
            # In its group from its first instruction on: Ctrl-C may come while Python starts.
            return os.posix_spawn(
                sys.executable, arguments, os.environ, file_actions=actions, setpgroup=0
            )

    def _fork_zygote(self, channel: Channel, end: socket.socket) -> int:
        pid = os.fork()
        if pid == 0:
            # Our end: while anybody has it open, the zygote does not see that we are gone.
            channel.close()
            zygote = Zygote(Channel(end), self._listener, self._settings, self._given)
            end_process_after(zygote.run)
        return pid
