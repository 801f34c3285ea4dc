"""pybreaker with its state in Redis, as its README does: each call asks the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from pybreaker import STATE_CLOSED, CircuitBreaker, CircuitRedisStorage

from bench import rivals


def closed(function: Callable[..., Any], client: redis.Redis) -> Callable[..., Any]:
    storage = CircuitRedisStorage(STATE_CLOSED, client, namespace="bench")
    breaker = CircuitBreaker(fail_max=rivals.NEVER, state_storage=storage)
    guarded: Callable[..., Any] = breaker(function)
    return guarded
