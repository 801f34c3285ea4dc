"""Active probes: a function of the user's finds out whether a dependency is back, not a call.

The event thread looks every `monitor_interval` seconds, and at once when a call was rejected that
would else have been the probe. Each probe runs on a daemon thread of its own, so that one that
hangs delays neither events nor other probes; the lease frees its place.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from memguard_native import _core
from memguard_native.breaker import events
from memguard_native.breaker.config import BreakerConfig
from memguard_native.breaker.outcome import Verdict, result_classifier
from memguard_native.errors import CircuitOpenError

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker

logger = logging.getLogger("memguard_native.breaker")

_MAX_HUNG = 4


@dataclass(eq=False)
class _Watched:
    """A breaker with an active probe, and the threads that run it: more than one if some hang."""

    breaker: weakref.ref[CircuitBreaker]
    core: weakref.ref[_core.Breaker]
    threads: list[threading.Thread] = field(default_factory=list)
    is_reported: bool = False


_watched: dict[int, _Watched] = {}  # by the breaker's number; replaced, never changed
_lock = threading.Lock()


def watch(breaker: CircuitBreaker, core: _core.Breaker) -> None:
    """Run the probe of this breaker when it is due, for as long as the breaker lives."""
    global _watched
    with _lock:
        if core.id not in _watched:
            found = _Watched(weakref.ref(breaker), weakref.ref(core))
            _watched = {**_watched, core.id: found}


def look() -> float | None:
    """Start the probes that are due; return the seconds until the next look, None: no need."""
    waits = []
    for breaker_id, watched in _watched.items():
        breaker, core = watched.breaker(), watched.core()
        if breaker is None or core is None or breaker.config.probe is None:
            _forget(breaker_id)
            continue
        if core.is_probe_due():
            _start(core, breaker.config, watched)
        waits.append(breaker.config.monitor_interval)
    return min(waits, default=None)


def _forget(breaker_id: int) -> None:
    global _watched
    with _lock:
        breaker = _watched[breaker_id].breaker() if breaker_id in _watched else None
        if breaker is None or breaker.config.probe is None:  # else it has one again
            _watched = {key: one for key, one in _watched.items() if key != breaker_id}


def _start(core: _core.Breaker, config: BreakerConfig, watched: _Watched) -> None:
    watched.threads = [thread for thread in watched.threads if thread.is_alive()]
    is_stuck = len(watched.threads) >= _MAX_HUNG
    core.set_prober_is_stuck(is_stuck)
    if is_stuck:
        if not watched.is_reported:
            logger.error(
                "%d probes of circuit %r hang: calls probe meanwhile; give the probe a timeout",
                len(watched.threads),
                config.name,
            )
        watched.is_reported = True
        return
    watched.is_reported = False
    thread = threading.Thread(
        target=run, args=(core, config), name=f"memguard-probe {config.name}", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:
        logger.exception("no thread for the probe of circuit %r; it is tried again", config.name)
        return
    watched.threads.append(thread)


def run(core: _core.Breaker, config: BreakerConfig) -> None:
    """Probe until the circuit is closed or opens again: as many times as it needs successes."""
    probe = cast("Callable[[], object]", config.probe)
    judge = result_classifier(config)
    while core.is_probe_due():
        try:
            with _core.Attempt(core, True) as attempt:
                result = probe()
                if inspect.isawaitable(result):
                    import asyncio

                    result = asyncio.run(_wait_for(result))
                if judge is not None and judge(result) is Verdict.failure:
                    attempt.failure()
        except CircuitOpenError:
            return  # somebody else probes already, or a lost probe opened the circuit again
        except Exception:
            # The breaker was told, as this probe's verdict.
            logger.debug("the probe of circuit %r failed", config.name, exc_info=True)
            return


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def renew_after_fork() -> None:
    """In a forked child: the threads are gone."""
    global _lock
    _lock = threading.Lock()
    for watched in _watched.values():
        watched.threads = []


events.add_task(look)
