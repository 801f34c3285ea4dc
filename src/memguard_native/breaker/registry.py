"""All breakers of this process, by name.

They are held weakly: a breaker lives as long as somebody uses it. Of several breakers with one name
the newest is found here. Any thread may use it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker

_lock = threading.Lock()
_by_name: weakref.WeakValueDictionary[str, CircuitBreaker] = weakref.WeakValueDictionary()


def get(name: str) -> CircuitBreaker | None:
    """The newest breaker of this name, or None."""
    return _by_name.get(name)


def get_or_create(name: str, **config: Any) -> CircuitBreaker:
    """The newest breaker of this name; else a new one with these arguments of CircuitBreaker.

    Raises ConfigError: an argument is not allowed.
    """
    from memguard_native.breaker.breaker import CircuitBreaker

    return get_or_make(name, lambda: CircuitBreaker(name, **config))


def get_or_make(
    name: str,
    make: Callable[[], CircuitBreaker],
    is_wanted: Callable[[CircuitBreaker], bool] = lambda _found: True,
) -> CircuitBreaker:
    """The newest breaker of this name, if it is wanted; else what `make()` gives.

    Made once, whatever threads ask.
    """
    with _creating:
        found = _by_name.get(name)
        return found if found is not None and is_wanted(found) else make()


def breakers() -> Iterator[CircuitBreaker]:
    """The newest breaker of each name, sorted by name."""
    # Not by iterating over the dictionary, from which a breaker that ends may vanish meanwhile.
    found = [breaker for ref in _by_name.valuerefs() if (breaker := ref()) is not None]
    return iter(sorted(found, key=lambda breaker: breaker.name))


def health() -> dict[str, str]:
    """The state of every breaker by name: ready for JSON and for a health route."""
    return {breaker.name: str(breaker.state) for breaker in breakers()}


def add(breaker: CircuitBreaker) -> None:
    """Called by each new breaker: from now on its name means this one."""
    with _lock:
        _by_name[breaker.name] = breaker


# Around look-up and construction, which itself calls add().
_creating = threading.RLock()


def renew_locks_after_fork() -> None:
    """In a forked child: a thread of the parent may have held them."""
    global _lock, _creating
    _lock = threading.Lock()
    _creating = threading.RLock()
