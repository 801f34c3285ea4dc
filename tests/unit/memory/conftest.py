from __future__ import annotations

import pytest

from memguard_native.testing import FakeProbe, ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=1000.0)


@pytest.fixture
def probe(clock: ManualClock) -> FakeProbe:
    return FakeProbe(clock)
