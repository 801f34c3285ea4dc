"""Breakers in memory that processes share, apart from those of the user's services."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
from pathlib import Path
from typing import Any

from memguard_native import segment
from memguard_native.breaker import events
from memguard_native.breaker.breaker import CircuitBreaker

NAMESPACE = f"bench-{os.getpid()}"
_numbers = itertools.count()


def breaker(**rules: Any) -> CircuitBreaker:
    """A breaker of scope "host" that no other has the name of; its file ends with this process.

    Raises RuntimeError: there is no such memory here.
    """
    found = shared(f"bench-{next(_numbers)}", NAMESPACE, **rules)
    _remove_at_exit(segment.path_of(NAMESPACE))
    return found


def shared(name: str, namespace: str, **rules: Any) -> CircuitBreaker:
    """The breaker that processes know by this name. Raises RuntimeError as `breaker` does."""
    found = CircuitBreaker(name, scope="host", namespace=namespace, **rules)
    if found.scope != "host":
        raise RuntimeError("no memory that processes share: the warning above says why")
    return found


@functools.cache
def _remove_at_exit(path: Path) -> None:
    atexit.register(_remove, path)


def _remove(path: Path) -> None:
    events._deliverer.stop()  # it would miss the file, and make another one
    for file in (path, path.with_name(f"{path.name}.lock")):
        file.unlink(missing_ok=True)
