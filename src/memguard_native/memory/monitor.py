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
from typing import TYPE_CHECKING, Any

from memguard_native import _core
from memguard_native.memory.action_policy import ActionPolicy
from memguard_native.memory.actions import ActionRecord
from memguard_native.memory.alert import Alert, MemoryState
from memguard_native.memory.config import DEFAULT_WARM_UP, MonitorConfig
from memguard_native.memory.history import keeper
from memguard_native.memory.load import Load
from memguard_native.memory.probe import Probe, default_probe
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.sampler import Feed, NativeFeed, ProbeFeed, SamplerThread
from memguard_native.memory.snapshot import MonitorSnapshot
from memguard_native.memory.surroundings import VARIABLE, read_surroundings

if TYPE_CHECKING:
    from memguard_native.memory.explanation import Explanation
    from memguard_native.memory.run import Run

logger = logging.getLogger("memguard_native.memory")


class MemoryMonitor:
    """Samples this process every `interval` seconds and raises an alert when it grows too fast.

    How a verdict comes about is told in docs/memory.md. It is of one of two rules, or of both:
    "floor" looks for memory that is never given back and grows as a leak does; "window" compares
    the oldest and the newest of the last `window` samples, as the original of this package did, and
    cannot tell a leak from a warm-up.

    Args:
        interval: seconds between two samples, from 0.001 to 30 days; default 60.
        window: how many samples the window rule compares, from 3 to 100000; default 12.
        threshold_mb_per_hour: growth that is tolerated, > 0; default 10. 1 MB = 2**20 bytes.
        rule: "floor" (default), "window" or "both".
        warm_up: seconds after the start that the floor rule looks at nothing of, from 0 to 30 days;
            default 300. What else warms up it tells by its shape.
        limit_bytes: what memory must not reach; default: the limits of the system alone.
        actions: what is done about an alert: "log" (default), "auto", "dry-run", or an
            `ActionPolicy`.
        evidence: look for what grows, by types and by lines of code, once there is a suspicion.
        on_sample: called with every `MemorySample`.
        on_alert: called with an `Alert` when one is raised, not again before it has cleared.
        on_action: called with an `ActionRecord` for every action that was taken.
        on_recycle: called with an `Alert` when this process is to be replaced.
        log_samples: log every sample at INFO; alerts are logged at WARNING anyway.
        load: called with every sample, returns what is in flight; default what `monitor.load` is
            told.
        gpu: "auto" watches the memory of the GPUs as well, by torch or by the extra `gpu`.
        minute_s: seconds that stand for a minute of the floor rule and of `warm_up`; default 60.
            Less is for tests in time lapse; evidence and actions keep their own time.
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
        rule: str = "floor",
        warm_up: float = DEFAULT_WARM_UP,
        limit_bytes: int | None = None,
        actions: str | ActionPolicy = "log",
        evidence: bool = True,
        on_sample: Callable[[MemorySample], object] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        on_action: Callable[[ActionRecord], object] | None = None,
        on_recycle: Callable[[Alert], object] | None = None,
        log_samples: bool = False,
        load: Callable[[], float] | None = None,
        gpu: str | None = None,
        minute_s: float = 60.0,
        probe: Probe | None = None,
        clock: _core.ManualClock | None = None,
        scope: str = "local",
        namespace: str | None = None,
    ) -> None:
        self._config = MonitorConfig(
            interval=interval,
            window=window,
            threshold_mb_per_hour=threshold_mb_per_hour,
            rule=rule,
            warm_up=warm_up,
            limit_bytes=limit_bytes,
            actions=ActionPolicy.named(actions),
            evidence=evidence,
            on_sample=on_sample,
            on_alert=on_alert,
            on_action=on_action,
            on_recycle=on_recycle,
            log_samples=log_samples,
            load=load,
            gpu=gpu,
            minute_s=minute_s,
            probe=probe,
            clock=clock,
            scope=scope,
            namespace=namespace,
        )
        self._environ: dict[str, str] | None = None
        if probe is None:  # what a probe of the user's finds may be of anything
            self._environ = {VARIABLE: os.environ.get(VARIABLE, "")}
            read_surroundings(self._environ)  # raises now if it is no size, and not in the thread
        self._keep = keeper(namespace) if scope == "host" else None
        self.load = Load()
        """What this process has to do, told by the program; see `memory.load`."""
        self._probe = default_probe(self.load.gauge) if probe is None else probe
        self._by_hand = self._new_probe_feed()
        self._starting = threading.RLock()
        self._run: Run | None = None
        self._thread: SamplerThread | None = None

    @property
    def running(self) -> bool:
        """From `start()` to `stop()`."""
        thread = self._thread
        return thread is not None and thread.running

    @property
    def state(self) -> MemoryState:
        """The verdict on the newest samples."""
        return self.snapshot().state

    def snapshot(self) -> MonitorSnapshot:
        """What is known now: state, samples, growth. Never blocks."""
        thread = self._thread
        latest = MonitorSnapshot() if self._run is None else self._run.watch.latest
        if thread is None:
            return dataclasses.replace(latest, probe_failures=self._by_hand.failures)
        return dataclasses.replace(
            latest, probe_failures=thread.failures, judging_failures=thread.judging_failures
        )

    def explain(self) -> Explanation:
        """All that is known now: verdict, cause, forecast, what each window says, evidence, what
        was done, and advice. `str()` of it is a page, `to_dict()` is for JSON."""
        run = self._run
        return (self._new_run(self._by_hand) if run is None else run).explain()

    def start(self) -> None:
        """Start sampling, at once and in state "learning"; nothing happens if it runs already.

        Belongs into the start-up of the process that serves: a thread does not survive a fork, and
        though the monitor starts itself anew in the child, CPython warns of forks with threads.

        Raises RuntimeError if the system gives no thread.
        """
        with self._starting:
            if self.running:
                return
            feed = self._new_feed()
            run = self._new_run(feed)
            thread = SamplerThread(feed, run.observe, run.close)
            self._run, self._thread = run, thread
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

        The first one after a `stop()` begins anew, in state "learning".

        Raises RuntimeError if the monitor is running.
        """
        if self.running:
            raise RuntimeError("tick() is for a monitor that is not running")
        with self._starting:
            run = self._run
            if run is None or run.is_closed:
                run = self._run = self._new_run(self._by_hand)
        for sample in self._by_hand.take():
            run.observe(sample)

    def _new_run(self, feed: Feed) -> Run:
        # Here and not above: numpy starts threads, and a process that will fork is to have none.
        from memguard_native.memory.run import Run

        return Run(
            self._config, self._probe, self.load, self._keep, self._environ, feed.retry_malloc
        )

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
        if self._run is not None:
            self._run.abandon()
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
    rule: str = "both",
    log_samples: bool = True,
    **settings: Any,
) -> Callable[[], None]:
    """Start a `MemoryMonitor` that also logs every sample; return its `stop` (idempotent).

    Unlike there, `rule` is "both" by default. See `MemoryMonitor` for all other arguments.

    Raises ConfigError: an argument is of the wrong type or out of its range.
    """
    monitor = MemoryMonitor(
        interval=interval,
        window=window,
        threshold_mb_per_hour=threshold_mb_per_hour,
        rule=rule,
        log_samples=log_samples,
        **settings,
    )
    monitor.start()
    return monitor.stop
