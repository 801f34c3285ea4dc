"""What a gunicorn arbiter shares with its workers: who serves, and who is being replaced.

One page of memory, made by the arbiter before it forks, and a lock that belongs to a process: the
kernel frees it when its holder ends, however that ends. A word has one writer at a time: the
arbiter on its main thread, a worker its own entry, and who holds the lock what is about him.

A replacement goes through the phases of `Phase`. The number of workers is raised by SIGTTIN, which
the arbiter counts, and lowered by the arbiter itself when it reaps a worker: the one that was to be
replaced, or one that never came to serve. Both are seen where the number is kept, so whoever is
killed, and whenever, the number is what people have set.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from enum import IntEnum

_WORD_BYTES = 8
_BYTES = 32 * 1024
_PHASE, _HOLDER, _SINCE_NS, _COUNT = range(4)
_ENTRIES = 8
_RESERVED = -2
"""An entry whose worker has not told its number yet; even, as all that do not serve."""
# A worker that is killed between its note and its signal has sent none: then the next one that
# comes is not its own. The arbiter may be busy with a reload meanwhile, for graceful_timeout.
_STRAY_SECONDS = 60.0


class Phase(IntEnum):
    """Idle: no replacement. Asked: a worker sends SIGTTIN. Raised: the arbiter has counted it.
    Cancelled: the worker that it started does not come to serve, and is killed. Stray: nobody wants
    the signal any more that may be on its way."""

    idle = 0
    asked = 1
    raised = 2
    cancelled = 3
    stray = 4


class WorkerTable:
    """The shared page; made in the arbiter, and inherited by fork.

    Raises OSError: no memory, or no descriptor is left.
    """

    def __init__(self, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._file = os.memfd_create("memguard-gunicorn")
        os.ftruncate(self._file, _BYTES)
        self._words = memoryview(mmap.mmap(self._file, _BYTES)).cast("q")
        self._clock_ns = clock_ns

    @property
    def phase(self) -> Phase:
        """Where the replacement is."""
        return Phase(self._words[_PHASE])

    @property
    def holder(self) -> int:
        """The process that is being replaced; 0: none."""
        return self._words[_HOLDER]

    @property
    def count(self) -> int:
        """How many workers the arbiter wants, with the one that a replacement adds."""
        return self._words[_COUNT]

    @property
    def phase_seconds(self) -> float:
        """For how long the phase has lasted."""
        return (self._clock_ns() - self._words[_SINCE_NS]) / 1e9

    # --- the arbiter ----------------------------------------------------------------------------

    def reserve(self) -> int | None:
        """An entry for a worker that is about to be forked; None if all 4088 are taken."""
        for entry in range(_ENTRIES, len(self._words)):
            if self._words[entry] == 0:
                self._words[entry] = _RESERVED
                return entry
        return None

    def count_changed(self, new: int, old: int) -> int:
        """The number of workers was changed from `old`; what it is to be, `new` or another."""
        phase = self.phase
        count = new
        if new == 0:
            self.forget()
        elif new == old + 1 and phase is Phase.asked:
            self._set(Phase.raised, self.holder)
        elif new == old + 1 and phase is Phase.stray:
            count = new if self.phase_seconds > _STRAY_SECONDS else old
            self._set(Phase.idle)
        elif phase in (Phase.raised, Phase.cancelled):
            # gunicorn refuses to go below one, and does not know that one is there for a while.
            count = max(2, new)
        self.tell_count(count)
        return count

    def count_was_set(self, count: int) -> None:
        """The number was set anew, at the start or by a reload: what was added is gone."""
        self.forget()
        self.tell_count(count)

    def tell_count(self, count: int) -> None:
        """The arbiter wants so many workers."""
        self._words[_COUNT] = count

    def forget(self) -> None:
        """There is no replacement any more; its signal may still come."""
        if self.phase is not Phase.stray:
            self._set(Phase.stray if self.phase is Phase.asked else Phase.idle)

    def ended(self, pid: int, entry: int) -> bool:
        """A worker was reaped; whether the number of workers is to be lowered by one."""
        has_served = self.is_serving(entry)
        self._words[entry] = 0
        phase = self.phase
        if pid == self.holder:
            self.forget()
            return phase in (Phase.raised, Phase.cancelled)
        if phase is Phase.cancelled and not has_served:
            self.forget()
            return True
        return False

    # --- a worker -------------------------------------------------------------------------------

    def tell_start(self, entry: int, pid: int) -> None:
        """This worker was forked."""
        self._words[entry] = pid << 1

    def tell_serving(self, entry: int, pid: int) -> None:
        """This worker serves."""
        self._words[entry] = pid << 1 | 1

    def is_serving(self, entry: int) -> bool:
        """Whether the worker of this entry serves, or served until it ended."""
        return bool(self._words[entry] & 1)

    def others_serving(self, entry: int) -> int:
        """How many workers but that of `entry` serve."""
        words = self._words[_ENTRIES:].tolist()
        return sum(word & 1 for word in words) - (self._words[entry] & 1)

    def others_starting(self, entry: int) -> list[int]:
        """The processes of the workers that do not serve yet, but for that of `entry`."""
        words = self._words.tolist()
        return [
            word >> 1
            for other, word in enumerate(words)
            if other >= _ENTRIES and other != entry and word > 0 and not word & 1
        ]

    def take(self, pid: int) -> bool:
        """Begin the replacement of this process; False while there is another one."""
        if not self._try_lock():
            return False
        is_free = self.phase is Phase.idle or (
            self.phase is Phase.stray and self.phase_seconds > _STRAY_SECONDS
        )
        if is_free:
            self._set(Phase.asked, pid)
        else:
            self.release()
        return is_free

    def cancel(self) -> None:
        """Wait no longer for the worker that was added; for who holds the lock."""
        self._set(Phase.cancelled, self.holder)

    def withdraw(self) -> None:
        """No signal was sent after `take()`; for who holds the lock."""
        self._set(Phase.idle)
        self.release()

    def release(self) -> None:
        """Others may be replaced."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        try:
            # Of the process and not of the open file: a fork does not inherit it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _set(self, phase: Phase, holder: int = 0) -> None:
        # The phase last: whoever sees it sees whose it is.
        self._words[_HOLDER] = holder
        self._words[_SINCE_NS] = self._clock_ns()
        self._words[_PHASE] = phase
