from __future__ import annotations

import pytest

from memguard_native import CircuitBreaker, ConfigError
from memguard_native.breaker.config import BreakerConfig


@pytest.mark.parametrize(
    "name", ["", "x" * 121, "é" * 61, "line\nbreak", "nul\0", "\ud800", None, 5, b"bytes"]
)
def test_a_bad_name_is_refused(name):
    with pytest.raises(ConfigError, match="name must be 1 to 120 bytes") as caught:
        CircuitBreaker(name)
    assert (caught.value.field, caught.value.value) == ("name", name)


@pytest.mark.parametrize("threshold", [0, -1, 2**31, 2.0, "5", None, True])
def test_a_bad_failure_threshold_is_refused(threshold):
    with pytest.raises(ConfigError, match="failure_threshold must be an int from 1 to 2147483647"):
        CircuitBreaker("b", threshold)


@pytest.mark.parametrize(
    "timeout", [0, -1.0, 0.0009, 30 * 86400 + 1, float("nan"), float("inf"), "60", None, False]
)
def test_a_bad_reset_timeout_is_refused(timeout):
    with pytest.raises(ConfigError, match=r"reset_timeout must be seconds from 0\.001 to 2592000"):
        CircuitBreaker("b", reset_timeout=timeout)


@pytest.mark.parametrize("clock", [5.0, "monotonic", object()])
def test_a_bad_clock_is_refused(clock):
    with pytest.raises(ConfigError, match="clock must be a ManualClock or None"):
        CircuitBreaker("b", clock=clock)


def test_the_message_says_what_was_given():
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("b", failure_threshold=0)
    assert str(caught.value) == "failure_threshold must be an int from 1 to 2147483647, got 0"
    assert isinstance(caught.value, ValueError)


def test_the_limits_themselves_are_allowed():
    CircuitBreaker("x" * 120, 1, 0.001)
    CircuitBreaker("é" * 60, 2**31 - 1, 30 * 86400)


def test_the_defaults_are_the_originals():
    config = CircuitBreaker("b").config
    assert config == BreakerConfig(name="b", failure_threshold=5, reset_timeout=60.0)


@pytest.mark.parametrize(
    ("reset_timeout", "probe_timeout"), [(0.001, 0.016), (60.0, 60.0), (86_400.0, 64_800.0)]
)
def test_the_probe_timeout_is_the_reset_timeout_within_the_range_of_a_lease(
    reset_timeout, probe_timeout
):
    assert BreakerConfig(name="b", reset_timeout=reset_timeout).probe_timeout == probe_timeout


def test_the_config_is_frozen(breaker):
    with pytest.raises(AttributeError):
        breaker.config.reset_timeout = 1.0
