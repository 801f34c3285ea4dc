"""What happened to the breakers, told to listeners in order and away from the calls.

The core puts each transition into a ring. A daemon thread, "memguard-events", takes it from there
to the listeners: it starts with the first event of the process, so that neither import nor
construction makes a thread, and again in a forked child. A listener may be slow or raise: what it
raises is counted and logged the first time, and no call ever waits for it. If it is so slow that
the ring, 1024 events, overflows, the oldest are lost and counted.

Transitions are logged by a listener of our own, `log_event`: see there. What happens too often to
be told one by one is counted, and summed up: see `Summaries`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from memguard_native import _core

logger = logging.getLogger("memguard_native.breaker")

_POLL_SECONDS = 1.0
_STOP_TIMEOUT = 2.0
_LOG_INTERVAL = 1.0
_LOG_NAMES = 1000
_SUMMARY_INTERVAL = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent:
    """One transition of one breaker."""

    breaker: str
    """Its name."""
    from_state: str
    to_state: str
    """The states before and after, as in `State`; the same where a lost probe was replaced, where
    the rules changed, and in a summary. Where nothing is enforced, what they would have been."""
    reason: str
    """consecutive_failures, failure_rate, slow_rate, custom, timeout (an open period or a state set
    by hand ended), probe_succeeded, probe_failed, probe_lost, inconclusive, manual, reset,
    reconfigured or summary."""
    generation: int
    """Grows by one with each transition of the breaker: the order of its events."""
    at_ns: int
    """When: the breaker's clock, to measure with."""
    wall_time: float
    """When: seconds since 1970-01-01 UTC, to show."""
    pid: int
    """The process in which it happened."""
    is_shadow: bool = False
    """Whether rejections are not enforced: no call was or will be rejected because of this."""
    origin: str = "local"
    """"manual" where a person or program did it by hand, "local" where the rules did, "host" where
    they did in another process."""
    detail: str | None = None
    """What a rule of the user's said, or the reason given by hand."""
    rejections: int = 0
    slow_calls: int = 0
    stale: int = 0
    """Of a summary: how many there were since the last one. At most one a second and breaker."""


Listener = Callable[[BreakerEvent], object]
Task = Callable[[], float | None]


class Subscription:
    """A listener whose errors stay here."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.is_log = isinstance(listener, _LogEvents)
        self.errors = 0

    def __call__(self, event: BreakerEvent) -> None:
        """Tell the listener."""
        try:
            self._listener(event)
        except Exception:
            self.errors += 1
            if self.errors == 1:
                logger.exception(
                    "listener %r raised; further errors of it are only counted", self._listener
                )


_subscriptions: tuple[Subscription, ...] = ()  # replaced, never changed: readers need no lock
_lock = threading.Lock()


def subscribe(listener: Listener) -> Callable[[], None]:
    """Tell `listener` every event from now on; return a function that ends it (idempotent).

    It is called on the event thread, one event at a time; the events of one breaker in their
    order. It may use any breaker.
    """
    global _subscriptions
    subscription = Subscription(listener)
    with _lock:
        _subscriptions = (*_subscriptions, subscription)

    def unsubscribe() -> None:
        global _subscriptions
        with _lock:
            _subscriptions = tuple(one for one in _subscriptions if one is not subscription)

    return unsubscribe


class _LogEvents:
    """Logs transitions: to open at WARNING, others at INFO, at most one a second and breaker.

    Summaries are not logged, nor is what happened in another process: it logs it itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[tuple[str, bool], tuple[float, int]] = {}

    def __call__(self, event: BreakerEvent) -> None:
        if event.reason == "summary" or event.pid != os.getpid():
            return
        now = self._clock()
        # Other rules are no transition, and hide none.
        key = (event.breaker, event.reason == "reconfigured")
        last, skipped = self._last.get(key, (-_LOG_INTERVAL, 0))
        if now - last < _LOG_INTERVAL:
            self._last[key] = (last, skipped + 1)
            return
        self._last[key] = (now, 0)
        if len(self._last) > _LOG_NAMES:  # breakers come and go: what is old is not needed
            self._last = {
                name: entry for name, entry in self._last.items() if now - entry[0] < _LOG_INTERVAL
            }
        opened = event.to_state in ("open", "forced_open") and not key[1]
        logger.log(
            logging.WARNING if opened else logging.INFO,
            "circuit %r: %s -> %s (%s%s)%s%s",
            event.breaker,
            event.from_state,
            event.to_state,
            event.reason,
            "" if event.detail is None else f": {event.detail}",
            ", in shadow: nothing is rejected" if event.is_shadow else "",
            f", {skipped} changes before it were not logged" if skipped else "",
        )


log_event = _LogEvents()
stop_logging = subscribe(log_event)
"""Call it to end the logging of transitions."""


# --- the way of an event --------------------------------------------------------------------------

_names: dict[int, str] = {}  # of the breakers by their id in events


# The native halves of the breakers by the same number, for summaries.
_cores: weakref.WeakValueDictionary[int, _core.Breaker] = weakref.WeakValueDictionary()

# The listeners of single breakers. Each is kept by its breaker and not here, where it would keep
# alive what it belongs to, the breaker perhaps included.
_own: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()


def register(breaker: object, core: _core.Breaker, name: str) -> None:
    """Called by each new breaker: its events carry this name, also those told after its end."""
    _names[core.id] = name
    _cores[core.id] = core
    weakref.finalize(breaker, _deliverer.forget, core.id).atexit = False


def listen(breaker_id: int, listener: Listener | None) -> Subscription | None:
    """From now on `listener` alone is told what happens to this one breaker.

    Returns what the breaker has to keep for as long as that is to be so.
    """
    if listener is None:
        _own.pop(breaker_id, None)
        return None
    subscription = _own[breaker_id] = Subscription(listener)
    return subscription


def as_event(told: tuple[Any, ...]) -> BreakerEvent:
    """The event that the core tells as a tuple."""
    breaker_id, *happened = told
    return _event_of(_names.get(breaker_id, "unknown"), *happened)


def _event_of(
    name: str,
    generation: int,
    at_ns: int,
    wall_ns: int,
    from_state: str,
    to_state: str,
    reason: str,
    is_shadow: bool,
    pid: int,
    detail: str | None,
) -> BreakerEvent:
    origin = "local" if pid == os.getpid() else "host"
    return BreakerEvent(
        breaker=name,
        from_state=from_state,
        to_state=to_state,
        reason=reason,
        generation=generation,
        at_ns=at_ns,
        wall_time=wall_ns / 1e9,
        pid=pid,
        is_shadow=is_shadow,
        origin="manual" if reason in ("manual", "reset", "reconfigured") else origin,
        detail=detail,
    )


def in_order(told: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same, those of each breaker by generation: without a GIL two may overtake each other."""
    of_breaker: dict[int, list[tuple[Any, ...]]] = {}
    for one in told:
        of_breaker.setdefault(one[0], []).append(one)
    sorted_ones = {
        breaker_id: iter(sorted(ones, key=lambda one: one[1]))
        for breaker_id, ones in of_breaker.items()
    }
    return [next(sorted_ones[one[0]]) for one in told]


# --- summaries ------------------------------------------------------------------------------------


class Summaries:
    """Tells what is counted and not told one by one: at most one event a second and breaker.

    It looks only while somebody beside the log listens, on the event thread, which the first
    transition starts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._told: dict[int, tuple[int, ...]] = {}

    def __call__(self) -> float | None:
        """Called by the event thread; returns the seconds until it wants to be called again."""
        now = self._clock()
        if now < self._next:
            return self._next - now
        self._next = now + _SUMMARY_INTERVAL
        # Not by iterating over the dictionary, from which a breaker that ends may vanish meanwhile.
        cores = {core.id: core for ref in _cores.valuerefs() if (core := ref()) is not None}
        self._told = {key: counters for key, counters in self._told.items() if key in cores}
        for breaker_id, core in cores.items():
            counters = core.counters()
            before = self._told.get(breaker_id, (0, 0, 0))
            if counters != before and _listeners(breaker_id):
                self._told[breaker_id] = counters
                _tell(breaker_id, _summary(breaker_id, core, before, counters))
        return _SUMMARY_INTERVAL


def _summary(
    breaker_id: int, core: _core.Breaker, before: tuple[int, ...], now: tuple[int, ...]
) -> BreakerEvent:
    found = core.snapshot()
    rejections, slow_calls, stale = (late - early for late, early in zip(now, before, strict=True))
    return BreakerEvent(
        breaker=_names.get(breaker_id, "unknown"),
        from_state=found["would_be"],
        to_state=found["would_be"],
        reason="summary",
        generation=found["generation"],
        at_ns=round(core.now() * 1e9),
        wall_time=time.time(),
        pid=os.getpid(),
        is_shadow=found["state"] == "shadow",
        rejections=rejections,
        slow_calls=slow_calls,
        stale=stale,
    )


def _listeners(breaker_id: int) -> list[Subscription]:
    """Who is told about this breaker, the log apart."""
    own = _own.get(breaker_id)
    others = [one for one in _subscriptions if not one.is_log]
    return others if own is None else [*others, own]


def _tell(breaker_id: int, event: BreakerEvent) -> None:
    own = _own.get(breaker_id)
    for subscription in _subscriptions if own is None else (*_subscriptions, own):
        subscription(event)


def tell_shared(name: str, breaker_ids: list[int], told: tuple[Any, ...]) -> None:
    """Tell what happened to a breaker that processes share, here one of these numbers or none."""
    event = _event_of(name, *told[1:])
    own = [one for breaker_id in breaker_ids if (one := _own.get(breaker_id)) is not None]
    for subscription in (*_subscriptions, *own):
        subscription(event)


_Read = tuple[list[tuple[Any, ...]], int, int, bool]


@dataclass(eq=False, slots=True)
class _Source:
    """A ring of events of the core, and how far it was read."""

    read: Callable[..., _Read]
    pushed: Callable[[], int]
    tell: Callable[[tuple[Any, ...]], None]
    next: int = 0


class _Deliverer:
    """Reads the core's ring and calls the listeners, on a thread that starts when it is needed."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._forgotten: SimpleQueue[int] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._tasks: list[Task] = []
        self._stopping = False
        self.lost = 0
        self.queue = _core.EventQueue(self.wake)
        own = _Source(self.queue.read, self.queue.pushed, lambda one: _tell(one[0], as_event(one)))
        self._sources: tuple[_Source, ...] = (own,)  # replaced, never changed

    def wake(self) -> None:
        """Called by the core when there is something to read: on the path of a call, so brief."""
        self._asked.put(None)
        self.start()

    def start(self) -> None:
        """Have the thread run, if it does not."""
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="memguard-events", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # no thread to be had, or the interpreter ends
                self._thread = None
                self.queue.arm()  # the next event tries again

    def forget(self, breaker_id: int) -> None:
        """The breaker is gone; its name is needed until its last event was told."""
        if self._thread is None:
            _names.pop(breaker_id, None)
        else:
            self._forgotten.put(breaker_id)

    def flush(self, timeout: float) -> bool:
        """Wait until all events so far were told; False if that took longer."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._asked.put(done)
        return done.wait(timeout)

    def stop(self) -> None:
        """At exit: tell what is there, and end within a bound."""
        self._stopping = True
        thread = self._thread
        if thread is not None:
            self._asked.put(None)
            thread.join(_STOP_TIMEOUT)

    def renew_after_fork(self) -> None:
        """In a child: the thread is gone, and the parent's events are the parent's to tell."""
        self._asked = SimpleQueue()
        self._forgotten = SimpleQueue()
        self._thread = None
        for source in self._sources:
            source.next = source.pushed()
        self.queue.arm()

    def _run(self) -> None:
        wait = _POLL_SECONDS
        while not self._stopping:
            asked = self._take(wait)
            self.queue.arm()
            self._deliver()
            wait = min([_POLL_SECONDS, *self._run_tasks()])
            if asked is not None:
                asked.set()
        self._deliver()

    def add_source(
        self,
        read: Callable[..., _Read],
        pushed: Callable[[], int],
        tell: Callable[[tuple[Any, ...]], None],
    ) -> Callable[[], None]:
        """Read another ring as well, from now on: see `_Source`. Returns what ends it."""
        source = _Source(read, pushed, tell, pushed())
        with _lock:
            self._sources = (*self._sources, source)

        def remove() -> None:
            with _lock:
                self._sources = tuple(one for one in self._sources if one is not source)

        return remove

    def add_task(self, task: Task) -> None:
        """Have the thread call `task` whenever it wakes, and after the seconds that it returns."""
        self._tasks.append(task)

    def _run_tasks(self) -> list[float]:
        waits = []
        for task in self._tasks:
            try:
                wait = task()
            except Exception:  # ours, but the thread has to live on
                logger.exception("a task of the event thread raised")
                continue
            if wait is not None:
                waits.append(wait)
        return waits

    def _take(self, wait: float) -> threading.Event | None:
        try:
            return self._asked.get(timeout=wait)
        except Empty:
            return None

    def _deliver(self) -> None:
        forgotten = [self._forgotten.get() for _ in range(self._forgotten.qsize())]
        for source in self._sources:
            self._deliver_from(source)
        for breaker_id in forgotten:
            _names.pop(breaker_id, None)

    def _deliver_from(self, source: _Source) -> None:
        skip = False
        while True:
            told, source.next, lost, unfinished = source.read(after=source.next, skip=skip)
            self.lost += lost
            for one in in_order(told):
                source.tell(one)
            if not told and not unfinished:
                break
            if unfinished and skip:
                break
            # One that is being written is waited for a moment, as its writer may be descheduled;
            # if it is still not there it was given up.
            if unfinished and not told:
                time.sleep(0.001)
            skip = unfinished and not told


_deliverer = _Deliverer()
queue = _deliverer.queue
add_task = _deliverer.add_task
add_source = _deliverer.add_source
start_thread = _deliverer.start
add_task(Summaries())


def flush(timeout: float = 5.0) -> bool:
    """Wait until every event so far was told to every listener; False if it takes longer.

    For tests, and before a process ends by `os._exit`. Not for a listener.
    """
    return _deliverer.flush(timeout)


def lost() -> int:
    """How many events were overwritten before a slow listener let us read them."""
    return _deliverer.lost


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _deliverer.renew_after_fork()


atexit.register(_deliverer.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
