from __future__ import annotations

import pytest

from memguard_native import CircuitBreaker
from memguard_native._core import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=1000.0)


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    """The original's defaults: 5 failures, 60 seconds."""
    return CircuitBreaker("search", clock=clock)
