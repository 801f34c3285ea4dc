"""What workers are made of: a zygote that is forked, or nothing, and they are spawned.

Keeps a zygote alive, puts a new one in its place when the application is to be loaded anew or the
old one has grown, and lets old ones end when their last worker has.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from memguard_native.recycling.children import signal_group
from memguard_native.recycling.messages import NOT_UNDERSTOOD, ChannelClosedError, Frame, Kind
from memguard_native.recycling.processes import Starter, ZygoteProcess

logger = logging.getLogger("memguard_native.recycling")

_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
_LOOK_INTERVAL = 60.0
_GROWN = 1.1
_GROWN_LEAST_BYTES = 16 * 2**20
# From the abort of one that hangs, which tells where, to its death.
_ABORT_TIME = 2.0


class Watch(Protocol):
    """As `recycling.supervisor.Selection`."""

    def add(self, file: Any, call: Callable[[], object]) -> None: ...
    def remove(self, file: Any) -> None: ...


class Template:
    """`start`: "auto", "zygote" or "spawn"; `load_timeout`: seconds that an application may take to
    be loaded; `on_frame(zygote, frame)` is told what zygotes say, `on_gone(zygote, by_chance)` of
    their ends."""

    def __init__(
        self,
        starter: Starter,
        watch: Watch,
        *,
        start: str,
        load_timeout: float,
        on_frame: Callable[[ZygoteProcess, Frame], object],
        on_gone: Callable[[ZygoteProcess, bool], object],
        clock: Callable[[], float],
    ) -> None:
        self._starter = starter
        self._watch = watch
        self._start = start
        self._load_timeout = load_timeout
        self._on_frame = on_frame
        self._on_gone = on_gone
        self._clock = clock
        self._spawns = start == "spawn"
        self._backoff = 0.0
        self._retry_at: float | None = None
        self._next_look_at = clock() + _LOOK_INTERVAL
        self._is_renewing = False
        self._is_wanted_again = False
        self._is_ending = False
        self._loading: ZygoteProcess | None = None
        self._old: list[ZygoteProcess] = []
        self.zygote: ZygoteProcess | None = None
        """The one that is forked; None: there is none, or workers are spawned."""
        if not self._spawns:
            self._load()

    @property
    def can_start(self) -> bool:
        """Whether workers can be started now."""
        return self._spawns or (self.zygote is not None and self.zygote.can_fork)

    @property
    def may_spawn(self) -> bool:
        """Whether workers may be spawned where they cannot be forked."""
        return self._start == "auto" and self._starter.can_spawn

    @property
    def can_load_again(self) -> bool:
        """Whether new workers may have other code: not where the application is an object."""
        return self._starter.can_spawn

    def pids(self) -> set[int]:
        """The process numbers of all zygotes."""
        zygotes = (self.zygote, self._loading, *self._old)
        return {one.pid for one in zygotes if one is not None}

    @property
    def method(self) -> str:
        """How workers are started: "zygote" or "spawn"."""
        return "spawn" if self._spawns else "zygote"

    def _load(self) -> None:
        self._retry_at = None
        zygote = self._loading = self._starter.start_zygote(self._clock())
        self._watch.add(zygote.channel, lambda: self._on_readable(zygote))

    def _try_to_load(self) -> None:
        try:
            self._load()
        except OSError as error:
            logger.error("the application cannot be loaded now: %s", error)
            self._load_later()

    def _on_readable(self, zygote: ZygoteProcess) -> None:
        try:
            while (frame := zygote.channel.receive()) is not None:
                self._on_frame(zygote, frame)
        except ChannelClosedError:
            self._gone(zygote)
        except NOT_UNDERSTOOD as error:
            zygote.failure = f"what it sent cannot be understood ({error!r})"
            text = "the zygote (process %d): %s"
            logger.error(text, zygote.pid, zygote.failure, exc_info=error)
            self._watch.remove(zygote.channel)
            zygote.kill()

    # --- one for another ------------------------------------------------------------------------

    def use(self, zygote: ZygoteProcess, loaded: Mapping[str, Any]) -> bool:
        """It has loaded the application: workers are forked of it from now on.

        Whether those that there are have to be replaced: the application was to be loaded anew.
        """
        if self.zygote is not None:
            self._retire(self.zygote)
        zygote.loaded = loaded
        self.zygote, self._loading = zygote, None
        self._backoff = 0.0
        logger.info("the application was loaded in %.2f s", loaded["load_s"])
        is_renewed, self._is_renewing = self._is_renewing, False
        self._renew_if_wanted_again()
        return is_renewed

    def _renew_if_wanted_again(self) -> None:
        if self._is_wanted_again:
            self._is_wanted_again = False
            self.renew()

    def spawn_instead(self, zygote: ZygoteProcess) -> bool:
        """It cannot be forked: workers are spawned from now on.

        Whether those that there are have to be replaced: as of `use`.
        """
        is_renewed = self._is_renewing
        self._spawns = True
        self.drop(zygote)
        if self.zygote is not None:
            self._retire(self.zygote)
            self.zygote = None
        return is_renewed

    def drop(self, zygote: ZygoteProcess) -> None:
        """It is of no use; another one is tried later where there is none."""
        if zygote is self._loading:
            self._loading = None
            self._is_renewing = False
        self._retire(zygote)
        self._renew_if_wanted_again()
        if not self.can_start and self._loading is None:
            self._load_later()

    def renew(self) -> bool:
        """Load the application anew; whether that is under way, and workers have to wait for it."""
        if self._spawns or not self._starter.can_spawn or self._is_ending:
            return False
        if self._loading is not None:
            self._is_wanted_again = True  # what has changed since then is not in it
        else:
            self._is_renewing = True
            self._try_to_load()
        return True

    def _retire(self, zygote: ZygoteProcess) -> None:
        if not zygote.is_gone:
            self._old.append(zygote)
            zygote.channel.send(Kind.exit)

    # --- ends -----------------------------------------------------------------------------------

    def reaped(self, pid: int) -> None:
        """A process has ended that was no worker: a zygote, or an orphan of a worker."""
        for zygote in (self.zygote, self._loading, *self._old):
            if zygote is not None and zygote.pid == pid:
                self._on_readable(zygote)
                self._gone(zygote)

    def _gone(self, zygote: ZygoteProcess) -> None:
        if zygote.is_gone:
            return
        zygote.is_gone = True
        self._watch.remove(zygote.channel)
        zygote.channel.close()
        self._on_gone(zygote, zygote is self.zygote and not self._is_ending)
        if zygote in self._old:
            self._old.remove(zygote)
            return
        if self._is_ending:
            return
        if zygote is self._loading:
            self._loading = None
            failed = zygote.failure or "its process ended"
            self._on_frame(zygote, Frame(Kind.loaded, payload={"failed": failed}))
            return
        if not self._starter.can_spawn:
            logger.error(
                "the process with the application is gone: workers serve on, and none can be "
                "replaced; name the application by an import string to have it loaded again"
            )
            return
        logger.error("the zygote (process %d) is gone: the application is loaded again", zygote.pid)
        self._load_later()

    def _load_later(self) -> None:
        """The first time at once: it may have been chance."""
        self._backoff = min(_LONGEST_BACKOFF, max(_FIRST_BACKOFF, self._backoff * 2))
        self._retry_at = self._clock() + (self._backoff if self._backoff > _FIRST_BACKOFF else 0.0)

    def look(self, now: float) -> None:
        """Ten times a second."""
        if self._retry_at is not None and now >= self._retry_at and self._loading is None:
            self._try_to_load()
        for one in (self.zygote, self._loading, *self._old):
            if one is not None and not one.is_gone:
                one.channel.flush()
        if self._loading is not None:
            self._end_if_late(self._loading, now)
        if now >= self._next_look_at:
            self._next_look_at = now + _LOOK_INTERVAL
            zygote = self.zygote
            if zygote is not None and self._loading is None and self._has_grown(zygote):
                logger.warning("the zygote has grown: the application is loaded again")
                self._try_to_load()

    def _end_if_late(self, zygote: ZygoteProcess, now: float) -> None:
        late = now - zygote.started_at - self._load_timeout
        if late > 0 and zygote.failure is None:
            zygote.failure = f"it was not loaded within {self._load_timeout:g} s; see its log"
            zygote.signal(signal.SIGABRT)
        elif late > _ABORT_TIME:
            zygote.kill()

    def was_late(self, gap: float) -> None:
        """The supervisor was stopped for a while: so may have been who loads."""
        if self._loading is not None:
            self._loading.started_at += gap

    def _has_grown(self, zygote: ZygoteProcess) -> bool:
        if zygote.loaded is None or zygote.is_gone:
            return False
        before = int(zygote.loaded["private_bytes"])
        now = _anonymous_bytes(zygote.pid)
        return now > before * _GROWN and now > before + _GROWN_LEAST_BYTES

    @property
    def is_gone(self) -> bool:
        """Whether no zygote is left."""
        return all(one is None or one.is_gone for one in (self.zygote, self._loading, *self._old))

    def end(self) -> None:
        """All zygotes end when their last worker has; one that still loads, now."""
        self._is_ending = True
        self._retry_at = None
        if self._loading is not None:
            self._loading.kill()
        for zygote in (self.zygote, *self._old):
            if zygote is not None and not zygote.is_gone:
                zygote.channel.send(Kind.exit)

    def close(self) -> None:
        """All zygotes end now, with what they have started."""
        for zygote in (self.zygote, self._loading, *self._old):
            if zygote is not None and not zygote.is_gone:
                signal_group(zygote.pid, signal.SIGKILL)
                zygote.kill()  # it may not have its group yet
                zygote.channel.close()
                with suppress(ChildProcessError):
                    os.waitpid(zygote.pid, 0)


def _anonymous_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            rows = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return 0
    return sum(int(rows.get(name, "0 kB").split()[0]) for name in ("RssAnon", "VmSwap")) * 1024
