"""Where the samples of a running monitor come from, and the thread that takes them to it.

A feed gives samples as they fall due: `NativeFeed` from the native thread, which samples also
while a library holds the GIL; `ProbeFeed` by asking a probe of Python. `SamplerThread` is one run:
it ends with `stop()` and is not started again.

`stop()` may be called by anybody, also by a signal handler that interrupted anything at all on the
main thread, hence the rule of this module: no lock of Python is waited for without a bound. A
native wait is no trouble, because Python runs its handlers only between bytecodes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from memguard_native import _core
from memguard_native.memory.probe import Probe
from memguard_native.memory.sample import MemorySample

logger = logging.getLogger("memguard_native.memory")

# Slots of the native ring: what may pile up while the GIL is held, and no more.
_RING_CAPACITY = 512

_LONGEST_WAIT = 3600.0
_STOP_TIMEOUT = 5.0
_JOIN_SLICE = 0.05


class Feed(Protocol):
    """Samples as they fall due. One thread waits; any thread closes."""

    @property
    def failures(self) -> int:
        """How many times a sample or a part of it could not be read."""
        ...

    def open(self) -> None:
        """Begin: the first sample is due now."""

    def wait(self) -> list[MemorySample]:
        """Wait for samples and return them, oldest first; nothing when closed, or by chance."""
        ...

    def retry_malloc(self) -> None:
        """Something was done: read malloc's figures again, if they were given up as too dear."""

    def close(self) -> None:
        """Wake up who waits, for good. Idempotent; also from a signal handler."""

    def abandon(self) -> None:
        """In a forked child: give up what the parent's threads use."""


class NativeFeed:
    """Samples of the native thread, which needs no GIL; it reads `load` with each of them."""

    def __init__(self, interval: float, load: _core.LoadGauge | None = None) -> None:
        self._sampler = _core.Sampler(interval=interval, capacity=_RING_CAPACITY, load=load)
        self._next = 0

    @property
    def failures(self) -> int:
        return self._sampler.failures()

    def open(self) -> None:
        self._sampler.start()

    def wait(self) -> list[MemorySample]:
        self._sampler.wait_for_sample(after=self._next, timeout=_LONGEST_WAIT)
        samples, self._next = self._sampler.samples_after(self._next)
        return [MemorySample._make(sample) for sample in samples]

    def retry_malloc(self) -> None:
        self._sampler.retry_malloc()

    def close(self) -> None:
        self._sampler.stop()

    def abandon(self) -> None:
        self._sampler.stop()  # it knows of the fork, and joins nothing


class ProbeFeed:
    """Asks a probe at the interval, on the thread that waits; a `clock` stamps the samples."""

    def __init__(self, probe: Probe, interval: float, clock: _core.ManualClock | None) -> None:
        self._probe = probe
        self._interval = interval
        self._clock = clock
        self._due: float | None = None
        self._closing: SimpleQueue[None] = SimpleQueue()  # its put() is safe in signal handlers
        self.failures = 0

    def open(self) -> None:
        self._due = time.monotonic()

    def wait(self) -> list[MemorySample]:
        now = time.monotonic()
        due = now if self._due is None else self._due
        try:
            self._closing.get(timeout=max(0.0, due - now))
        except Empty:
            # Kept to a grid, as the native thread does: what was missed is not made up for.
            late = max(0.0, time.monotonic() - due)
            self._due = due + self._interval * (late // self._interval + 1)
            return self.take()
        return []

    def take(self) -> list[MemorySample]:
        """One sample now; none if the probe raises, which is logged the first time."""
        try:
            sample = self._probe.sample()
            if not isinstance(sample, MemorySample):
                raise TypeError(f"sample() must return a MemorySample, got {sample!r}")
        except Exception:
            self.failures += 1
            if self.failures == 1:
                logger.exception("memory probe failed; further failures are only counted")
            return []
        if self._clock is not None:
            sample = sample._replace(monotonic_ns=round(self._clock.now() * 1e9))
        return [sample]

    def retry_malloc(self) -> None:
        pass  # a probe of Python has no budget that ends

    def close(self) -> None:
        self._closing.put(None)

    def abandon(self) -> None:
        pass  # no native thread, and nobody waits: the one that did is gone


class SamplerThread:
    """Hands every sample of a feed to `observe`, on a daemon thread; a stop calls `close`."""

    def __init__(
        self,
        feed: Feed,
        observe: Callable[[MemorySample], None],
        close: Callable[[], None] | None = None,
    ) -> None:
        self._feed = feed
        self._observe = observe
        self._close = close
        self.judging_failures = 0
        """How many samples could not be judged, by an error of ours."""
        self._stopping = False
        self._finished = False
        self._thread = threading.Thread(target=self._run, name="memguard-memory", daemon=True)

    @property
    def running(self) -> bool:
        """From the start until `stop()` is called."""
        return not self._stopping and not self._finished

    @property
    def failures(self) -> int:
        """How many times a sample or a part of it could not be read."""
        return self._feed.failures

    def start(self) -> None:
        """Raises RuntimeError if the system gives no thread."""
        try:
            self._feed.open()
            self._thread.start()
        except BaseException:
            self._stopping = True
            self._feed.close()
            raise

    def stop(self) -> None:
        """End the thread and wait for it, at most 5 seconds; on the thread itself, do not wait.

        No sample is observed that was not when this is called. What the wait can be long for is a
        callback, and it may never end: one that wants a lock which the interrupted code holds.
        """
        self._stopping = True
        self._feed.close()
        deadline = time.monotonic() + _STOP_TIMEOUT
        # In slices, with a mark of our own for the end. join() alone could hang in a signal
        # handler: the code that it interrupted may hold the very lock that join(), or the end of a
        # thread, needs (threading lists its threads under a lock that is not reentrant).
        while not self._finished and time.monotonic() < deadline and self._join():
            pass
        self._join()
        if self._close is not None:
            self._close()

    def abandon(self) -> None:
        """In a forked child: the thread is not there."""
        self._stopping = True
        self._feed.abandon()

    def _join(self) -> bool:
        try:
            self._thread.join(_JOIN_SLICE)
        except RuntimeError:
            # It is the thread that asks; or not started yet, and will see the mark first.
            return False
        return True

    def _run(self) -> None:
        try:
            while not self._stopping:
                for sample in self._feed.wait():
                    self._deliver(sample)
        finally:
            self._feed.close()
            self._finished = True

    def _deliver(self, sample: MemorySample) -> None:
        if self._stopping:
            return
        try:
            self._observe(sample)
        except BaseException:  # whatever it is: a thread that ended would guard nothing any more
            self.judging_failures += 1
            if self.judging_failures == 1:
                logger.exception(
                    "a memory sample could not be judged; further failures are only counted"
                )
