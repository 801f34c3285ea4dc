"""Prevents out-of-memory deaths and cascading failures of Python services.

The names below are loaded when they are first used: importing the package costs a few milliseconds
and loads neither numpy nor psutil nor any optional dependency.
"""

from __future__ import annotations

from memguard_native._core import __version__

_HOME = {
    "ActionPolicy": "memguard_native.memory.action_policy",
    "Alert": "memguard_native.memory.alert",
    "BreakerConfig": "memguard_native.breaker.config",
    "BreakerEvent": "memguard_native.breaker.events",
    "BreakerSnapshot": "memguard_native.breaker.snapshot",
    "CircuitBreaker": "memguard_native.breaker.breaker",
    "State": "memguard_native.breaker.breaker",
    "CircuitOpenError": "memguard_native.errors",
    "ConfigError": "memguard_native.errors",
    "MemguardError": "memguard_native.errors",
    "Forecast": "memguard_native.memory.alert",
    "MemoryMonitor": "memguard_native.memory.monitor",
    "MemorySample": "memguard_native.memory.sample",
    "MemoryState": "memguard_native.memory.alert",
    "RingBuffer": "memguard_native._core",
    "SegmentError": "memguard_native.errors",
    "SegmentUnavailableError": "memguard_native.errors",
    "Suspect": "memguard_native.memory.alert",
    "TripRule": "memguard_native.breaker.trip_rules",
    "budget": "memguard_native.breaker.trip_rules",
    "pile_up": "memguard_native.breaker.trip_rules",
    "start_memory_monitoring": "memguard_native.memory.monitor",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memguard_native._core import RingBuffer
    from memguard_native.breaker.breaker import CircuitBreaker, State
    from memguard_native.breaker.config import BreakerConfig
    from memguard_native.breaker.events import BreakerEvent
    from memguard_native.breaker.snapshot import BreakerSnapshot
    from memguard_native.breaker.trip_rules import TripRule, budget, pile_up
    from memguard_native.errors import (
        CircuitOpenError,
        ConfigError,
        MemguardError,
        SegmentError,
        SegmentUnavailableError,
    )
    from memguard_native.memory.action_policy import ActionPolicy
    from memguard_native.memory.alert import Alert, Forecast, MemoryState, Suspect
    from memguard_native.memory.monitor import MemoryMonitor, start_memory_monitoring
    from memguard_native.memory.sample import MemorySample

__all__ = [
    "ActionPolicy",
    "Alert",
    "BreakerConfig",
    "BreakerEvent",
    "BreakerSnapshot",
    "CircuitBreaker",
    "CircuitOpenError",
    "ConfigError",
    "Forecast",
    "MemguardError",
    "MemoryMonitor",
    "MemorySample",
    "MemoryState",
    "RingBuffer",
    "SegmentError",
    "SegmentUnavailableError",
    "State",
    "Suspect",
    "TripRule",
    "__version__",
    "budget",
    "pile_up",
    "start_memory_monitoring",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
