"""purgatory: a factory that gives decorators by name, one for functions, one for coroutines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from bench import rivals

UNSUPPORTED = {"time_window": "knows no rates"}


def closed(function: Callable[..., Any]) -> Callable[..., Any]:
    factory = SyncCircuitBreakerFactory(default_threshold=rivals.NEVER)
    guarded: Callable[..., Any] = factory("bench")(function)
    return guarded


def closed_async(function: Callable[..., Any]) -> Callable[..., Any]:
    factory = AsyncCircuitBreakerFactory(default_threshold=rivals.NEVER)
    guarded: Callable[..., Any] = factory("bench")(function)
    return guarded


def context() -> tuple[object, str]:
    factory = SyncCircuitBreakerFactory(default_threshold=rivals.NEVER)
    return factory, 'with x.get_breaker("bench"): pass'


def opened() -> tuple[Callable[..., Any], type[BaseException], Callable[[], object]]:
    guarded = SyncCircuitBreakerFactory(default_ttl=int(rivals.HOUR_S))("bench")(rivals.fail)
    rivals.open_by_failures(guarded, OpenedState)

    def forget_traceback() -> None:
        # It raises one and the same error object, whose traceback grows by each rejection.
        try:
            guarded()
        except OpenedState as error:
            error.__traceback__ = None

    return guarded, OpenedState, forget_traceback
