"""`MemoryMonitor` watches the memory of this process and tells when it grows too fast.

Nothing starts at import: `start()` starts a thread of Python, "memguard-memory", which logs,
judges and calls the callbacks, and on Linux a native thread, which samples and needs no GIL. Any
thread may call anything at any time; `stop()` also a signal handler or a callback. A child of
`os.fork()` goes on by itself if its parent was running, with fresh threads, in state "learning".
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
from collections.abc import Callable

from memguard_native import _core
from memguard_native.memory.alert import Alert
from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.history import keeper
from memguard_native.memory.load import Load
from memguard_native.memory.probe import Probe, default_probe
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.sampler import Feed, NativeFeed, ProbeFeed, SamplerThread
from memguard_native.memory.watch import MonitorSnapshot, Watch
from memguard_native.memory.window import MemoryState

logger = logging.getLogger("memguard_native.memory")


class MemoryMonitor:
    """Samples this process every `interval` seconds and raises an alert when it grows too fast.

    The alert is raised when memory grew by more than `threshold_mb_per_hour` from the oldest to the
    newest of the last `window` samples. What is compared is private memory: anonymous, shared and
    swapped out; the resident set where that is not known.

    Args:
        interval: seconds between two samples, from 0.001 to 30 days; default 60.
        window: how many samples are compared, from 3 to 100000; default 12.
        threshold_mb_per_hour: the limit, > 0; default 10. 1 MB = 2**20 bytes.
        on_sample: called with every `MemorySample`.
        on_alert: called with an `Alert` when one is raised, not again before it has cleared.
        log_samples: log every sample at INFO; alerts are logged at WARNING anyway.
        probe: where samples come from, for tests; default the best of this system.
        clock: a `ManualClock` that stamps the samples, for tests; default the probe's own time.
        scope: "local", or "host": samples are also kept in memory that outlives this process, see
            `memory.history`. Where there is none, a warning says why.
        namespace: of that memory; default `MEMGUARD_NAMESPACE` or "default".

    The callbacks run on the monitor's thread, no lock held. What they raise is counted, and logged
    the first time. The logger is "memguard_native.memory".

    Raises:
        ConfigError: an argument is of the wrong type or out of its range.
        SegmentError: the shared file is somebody else's, or open to others.
    """

    def __init__(
        self,
        interval: float = 60.0,
        window: int = 12,
        threshold_mb_per_hour: float = 10.0,
        *,
        on_sample: Callable[[MemorySample], object] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        log_samples: bool = False,
        probe: Probe | None = None,
        clock: _core.ManualClock | None = None,
        scope: str = "local",
        namespace: str | None = None,
    ) -> None:
        self._config = MonitorConfig(
            interval=interval,
            window=window,
            threshold_mb_per_hour=threshold_mb_per_hour,
            on_sample=on_sample,
            on_alert=on_alert,
            log_samples=log_samples,
            probe=probe,
            clock=clock,
            scope=scope,
            namespace=namespace,
        )
        self._keep = keeper(namespace) if scope == "host" else None
        self.load = Load()
        """What this process has to do, told by the program; see `memory.load`."""
        self._probe = default_probe(self.load.gauge) if probe is None else probe
        self._by_hand = self._new_probe_feed()
        self._starting = threading.RLock()
        self._watch = Watch(self._config)
        self._thread: SamplerThread | None = None

    @property
    def running(self) -> bool:
        """From `start()` to `stop()`."""
        thread = self._thread
        return thread is not None and thread.running

    @property
    def state(self) -> MemoryState:
        """The verdict on the newest samples: learning, steady or alert."""
        return self._watch.latest.state

    def snapshot(self) -> MonitorSnapshot:
        """What is known now: state, samples, growth. Never blocks."""
        feed = self._thread or self._by_hand
        return dataclasses.replace(self._watch.latest, probe_failures=feed.failures)

    def start(self) -> None:
        """Start sampling, at once and in state "learning"; nothing happens if it runs already.

        Belongs into the start-up of the process that serves: a thread does not survive a fork, and
        though the monitor starts itself anew in the child, CPython warns of forks with threads.

        Raises RuntimeError if the system gives no thread.
        """
        with self._starting:
            if self.running:
                return
            watch = Watch(self._config)
            thread = SamplerThread(self._new_feed(), self._observer_of(watch))
            self._watch, self._thread = watch, thread
            _running[thread] = self
            try:
                thread.start()
            except BaseException:
                _running.pop(thread, None)
                raise

    def stop(self) -> None:
        """Stop sampling and wait for the thread; nothing happens if it does not run.

        Waits for a callback that is running, at most 5 seconds; called by a callback it does not
        wait. After it no further sample is taken and no callback begins.
        """
        thread = self._thread
        if thread is not None:
            thread.stop()
            _running.pop(thread, None)

    def tick(self) -> None:
        """Take one sample now, on this thread: for tests, and for who has a scheduler of his own.

        Raises RuntimeError if the monitor is running.
        """
        if self.running:
            raise RuntimeError("tick() is for a monitor that is not running")
        observe = self._observer_of(self._watch)
        for sample in self._by_hand.take():
            observe(sample)

    def _observer_of(self, watch: Watch) -> Callable[[MemorySample], None]:
        keep = self._keep
        if keep is None:
            return watch.observe

        def observe(sample: MemorySample) -> None:
            keep(sample)  # first: a callback of the user's may take long
            watch.observe(sample)

        return observe

    def _new_feed(self) -> Feed:
        if _core.HAS_NATIVE_PROBE and self._config.probe is None and self._config.clock is None:
            return NativeFeed(self._config.interval, self.load.gauge)
        return self._new_probe_feed()

    def _new_probe_feed(self) -> ProbeFeed:
        return ProbeFeed(self._probe, self._config.interval, self._config.clock)

    def _restart_in_child(self, thread: SamplerThread) -> None:
        self._starting = threading.RLock()  # a thread of the parent may have held it
        was_running = thread.running and thread is self._thread
        thread.abandon()
        _running.pop(thread, None)
        if was_running:
            try:
                self.start()
            except (OSError, RuntimeError):
                logger.exception("memory monitor could not start in a forked child")


# Every run that was not stopped, and whose it is. By run and not by monitor: a stop() that ends
# late must not strike out the run that a start() has begun meanwhile.
_running: dict[SamplerThread, MemoryMonitor] = {}


def _stop_all() -> None:
    for monitor in tuple(_running.values()):
        monitor.stop()


def _restart_all_in_child() -> None:
    for thread, monitor in tuple(_running.items()):
        monitor._restart_in_child(thread)


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all_in_child)


def start_memory_monitoring(
    *,
    interval: float = 60.0,
    window: int = 12,
    threshold_mb_per_hour: float = 10.0,
    on_sample: Callable[[MemorySample], object] | None = None,
    on_alert: Callable[[Alert], object] | None = None,
    log_samples: bool = True,
    probe: Probe | None = None,
    clock: _core.ManualClock | None = None,
    scope: str = "local",
    namespace: str | None = None,
) -> Callable[[], None]:
    """Start a `MemoryMonitor` that also logs every sample; return its `stop` (idempotent).

    See `MemoryMonitor` for the arguments and their defaults.

    Raises ConfigError: an argument is of the wrong type or out of its range.
    """
    monitor = MemoryMonitor(
        interval=interval,
        window=window,
        threshold_mb_per_hour=threshold_mb_per_hour,
        on_sample=on_sample,
        on_alert=on_alert,
        log_samples=log_samples,
        probe=probe,
        clock=clock,
        scope=scope,
        namespace=namespace,
    )
    monitor.start()
    return monitor.stop
