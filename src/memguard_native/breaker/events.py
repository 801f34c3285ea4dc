"""What happened to the breakers, told to listeners in order and away from the calls.

The core puts each transition into a ring. A daemon thread, "memguard-events", takes it from there
to the listeners: it starts with the first event of the process, so that neither import nor
construction makes a thread, and again in a forked child. A listener may be slow or raise: what it
raises is counted and logged the first time, and no call ever waits for it. If it is so slow that
the ring, 1024 events, overflows, the oldest are lost and counted.

Transitions are logged by a listener of our own, `log_event`: see there.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerEvent:
    """One transition of one breaker."""

    breaker: str
    """Its name."""
    from_state: str
    to_state: str
    """The states before and after, as in `State`; the same where a lost probe was replaced."""
    reason: str
    """consecutive_failures, failure_rate, slow_rate, timeout (an open period or a state set by hand
    ended), probe_succeeded, probe_failed, probe_lost, inconclusive, manual or reset."""
    generation: int
    """Grows by one with each transition of the breaker: the order of its events."""
    at_ns: int
    """When: the breaker's clock, to measure with."""
    wall_time: float
    """When: seconds since 1970-01-01 UTC, to show."""
    pid: int
    """The process in which it happened."""


Listener = Callable[[BreakerEvent], object]


class Subscription:
    """A listener whose errors stay here."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
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
    """Logs transitions: to open at WARNING, others at INFO, at most one a second and breaker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, event: BreakerEvent) -> None:
        now = self._clock()
        last, skipped = self._last.get(event.breaker, (-_LOG_INTERVAL, 0))
        if now - last < _LOG_INTERVAL:
            self._last[event.breaker] = (last, skipped + 1)
            return
        self._last[event.breaker] = (now, 0)
        if len(self._last) > _LOG_NAMES:  # breakers come and go: what is old is not needed
            self._last = {
                name: entry for name, entry in self._last.items() if now - entry[0] < _LOG_INTERVAL
            }
        opened = event.to_state in ("open", "forced_open")
        logger.log(
            logging.WARNING if opened else logging.INFO,
            "circuit %r: %s -> %s (%s)%s",
            event.breaker,
            event.from_state,
            event.to_state,
            event.reason,
            f", {skipped} changes before it were not logged" if skipped else "",
        )


log_event = _LogEvents()
stop_logging = subscribe(log_event)
"""Call it to end the logging of transitions."""


# --- the way of an event --------------------------------------------------------------------------

_names: dict[int, str] = {}  # of the breakers by their id in events


# The listeners of single breakers. Each is kept by its breaker and not here, where it would keep
# alive what it belongs to, the breaker perhaps included.
_own: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()


def register(
    breaker: object, breaker_id: int, name: str, listener: Listener | None
) -> Subscription | None:
    """Called by each new breaker: its events carry this name, also those told after its end.

    Returns what the breaker has to keep for as long as `listener` is to be told.
    """
    _names[breaker_id] = name
    weakref.finalize(breaker, _deliverer.forget, breaker_id).atexit = False
    if listener is None:
        return None
    subscription = _own[breaker_id] = Subscription(listener)
    return subscription


def as_event(told: tuple[Any, ...]) -> BreakerEvent:
    """The event that the core tells as a tuple."""
    breaker_id, generation, at_ns, wall_ns, from_state, to_state, reason = told
    return BreakerEvent(
        breaker=_names.get(breaker_id, "unknown"),
        from_state=from_state,
        to_state=to_state,
        reason=reason,
        generation=generation,
        at_ns=at_ns,
        wall_time=wall_ns / 1e9,
        pid=os.getpid(),
    )


class _Deliverer:
    """Reads the core's ring and calls the listeners, on a thread that starts when it is needed."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._forgotten: SimpleQueue[int] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._next = 0
        self.lost = 0
        self.queue = _core.EventQueue(self.wake)

    def wake(self) -> None:
        """Called by the core when there is something to read: on the path of a call, so brief."""
        self._asked.put(None)
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="memguard-events", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # no thread to be had, or the interpreter ends
                self._thread = None

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
        self._next = self.queue.pushed()
        self.queue.arm()

    def _run(self) -> None:
        while not self._stopping:
            asked = self._take()
            self.queue.arm()
            self._deliver()
            if asked is not None:
                asked.set()
        self._deliver()

    def _take(self) -> threading.Event | None:
        try:
            return self._asked.get(timeout=_POLL_SECONDS)
        except Empty:
            return None

    def _tell(self, told: tuple[Any, ...]) -> None:
        event = as_event(told)
        own = _own.get(told[0])
        for subscription in _subscriptions if own is None else (*_subscriptions, own):
            subscription(event)

    def _deliver(self) -> None:
        forgotten = [self._forgotten.get() for _ in range(self._forgotten.qsize())]
        skip = False
        while True:
            told, self._next, lost, unfinished = self.queue.read(after=self._next, skip=skip)
            self.lost += lost
            for one in told:
                self._tell(one)
            if not told and not unfinished:
                break
            if unfinished and skip:
                break
            # One that is being written is waited for a moment, as its writer may be descheduled;
            # if it is still not there it was given up.
            if unfinished and not told:
                time.sleep(0.001)
            skip = unfinished and not told
        for breaker_id in forgotten:
            _names.pop(breaker_id, None)


_deliverer = _Deliverer()
queue = _deliverer.queue


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
