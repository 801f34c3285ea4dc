"""One adapter per peer, each configured as its own documentation does.

The adapter of a breaker has a function per form. `closed(f)` decorates with a threshold that never
trips; `closed_async(f)` does so for a coroutine function, `time_window(f, seconds)` with a failure
rate over time; `context()` returns such a breaker as `x`, and the `with` statement that enters it;
`opened()` returns a decorated function whose breaker has opened by real failures and stays so for
an hour, the error that it rejects with, and what has to be done between two chunks, if anything.
`UNSUPPORTED` tells why a form is lacking. Adapters import their peer at import, so a missing one
is found by `load()`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.harness import Bench

NEVER = 1_000_000_000
HOUR_S = 3600.0


@dataclass(frozen=True)
class Peer:
    """A rival: the module of its adapter, its name in tables, and its distribution."""

    module: str
    name: str
    package: str | None

    def load(self) -> Any:
        """Its adapter; None where the distribution is not installed."""
        if self.package is not None and version(self.package) is None:
            return None
        return importlib.import_module(f"bench.rivals.{self.module}")


BREAKERS = (
    Peer("by_hand", "by hand, Python", None),
    Peer("circuitbreaker", "circuitbreaker", "circuitbreaker"),
    Peer("pybreaker", "pybreaker", "pybreaker"),
    Peer("aiobreaker", "aiobreaker", "aiobreaker"),
    Peer("purgatory", "purgatory", "purgatory"),
    Peer("interlock", "interlock-cb", "interlock-cb"),
)
# One that processes share as well. Its adapter has `closed(f, client)` only.
WITH_REDIS = Peer("pybreaker_redis", "pybreaker with Redis", "pybreaker")


class SimulatedOutageError(Exception):
    """What the failing dependency of the benchmarks raises."""


def each(b: Bench, form: str) -> Iterator[tuple[Peer, Callable[..., Any]]]:
    """The peers that have `form`; the others become rows that say why they have no figure."""
    for peer in BREAKERS:
        adapter = peer.load()
        if adapter is None:
            b.absent(peer.name, "not installed", peer.package)
        elif form in getattr(adapter, "UNSUPPORTED", {}):
            b.absent(peer.name, adapter.UNSUPPORTED[form], peer.package)
        else:
            yield peer, getattr(adapter, form)


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def open_by_failures(call: Callable[[], Any], rejection: type[BaseException]) -> None:
    """Let the dependency fail until the breaker rejects."""
    for _ in range(1000):
        try:
            call()
        except rejection:
            return
        except SimulatedOutageError:
            pass
    raise RuntimeError("the breaker did not open within 1000 failures")


def fail() -> None:
    raise SimulatedOutageError
