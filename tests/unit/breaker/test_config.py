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


@pytest.mark.parametrize("threshold", [0, -1, 2**31, 2.0, "5", True])
def test_a_bad_failure_threshold_is_refused(threshold):
    with pytest.raises(ConfigError, match="failure_threshold must be an int from 1 to 2147483647"):
        CircuitBreaker("b", threshold)


@pytest.mark.parametrize(
    "timeout",
    [0, -1.0, 0.0009, 30 * 86400 + 1, float("nan"), float("inf"), 10**400, "60", None, False],
)
def test_a_bad_reset_timeout_is_refused(timeout):
    with pytest.raises(ConfigError, match=r"reset_timeout must be seconds from 0\.001 to 2592000"):
        CircuitBreaker("b", reset_timeout=timeout)


@pytest.mark.parametrize("clock", [5.0, "wall", None, object()])
def test_a_bad_clock_is_refused(clock):
    with pytest.raises(ConfigError, match="clock must be 'monotonic', 'boottime' or a ManualClock"):
        CircuitBreaker("b", clock=clock)


def test_the_message_says_what_was_given():
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("b", failure_threshold=0)
    assert str(caught.value) == (
        "failure_threshold must be an int from 1 to 2147483647 or None, got 0"
    )
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


BAD_VALUES = [
    ("success_threshold", 0, "must be an int from 1 to 31"),
    ("success_threshold", 32, "must be an int from 1 to 31"),
    ("half_open_max", 64, "must be an int from 1 to 63"),
    ("half_open_max", "1", "must be an int from 1 to 63"),
    ("probe_timeout", 0.015, "must be seconds from 0.016 to 64800"),
    ("probe_timeout", 64_801, "must be seconds from 0.016 to 64800"),
    ("probe_expiry", "maybe", "must be one of 'retry', 'failure'"),
    ("backoff_factor", 0.99, "must be a number >= 1"),
    ("backoff_factor", float("inf"), "must be a number >= 1"),
    ("max_reset_timeout", 59.9, "must be seconds from 60 to 2592000"),
    ("jitter", 1.01, "must be a number from 0 to 1"),
    ("jitter", None, "must be a number from 0 to 1"),
    ("jitter_mode", "none", "must be one of 'spread', 'full', 'equal'"),
    ("reopen_after", 5, "must be callable or None"),
    ("ignore", "KeyError", "must be exception types or functions of an exception"),
    ("ignore", (KeyError, int), "must be exception types or functions of an exception"),
    ("failure_if", True, "must be callable or None"),
    ("failure_if_result", "x", "must be callable or None"),
    ("count_base_exceptions", 1, "must be True or False"),
    ("call_timeout", 0, "must be seconds from 0.001"),
    ("jitter", 10**400, "must be a number from 0 to 1"),
    ("on_event", "print", "must be callable or None"),
    ("inline_events", None, "must be True or False"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD_VALUES)
def test_a_bad_value_is_refused_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ConfigError) as caught:
        CircuitBreaker("b", **{field: value})
    assert (caught.value.field, caught.value.allowed) == (field, allowed)


def test_what_is_not_given_is_completed():
    config = BreakerConfig(name="b", reset_timeout=0.002, ignore=KeyError)
    assert (config.probe_timeout, config.max_reset_timeout) == (0.016, 300.0)
    assert config.ignore == (KeyError,)
    slow = BreakerConfig(name="b", reset_timeout=100_000.0)
    assert (slow.probe_timeout, slow.max_reset_timeout) == (64_800.0, 100_000.0)


def test_the_recommended_rules_grow_and_spread_their_waits():
    config = BreakerConfig.recommended("b")
    breaker = CircuitBreaker.from_config(config)
    assert breaker.config == config
    assert (config.backoff_factor, config.max_reset_timeout, config.jitter) == (2.0, 300.0, 0.5)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", 31 * 86400])
def test_a_bad_period_of_a_state_set_by_hand_is_refused(seconds):
    breaker = CircuitBreaker("b")
    for act in (breaker.force_open, breaker.disable, breaker.trip):
        with pytest.raises(ConfigError, match=r"must be seconds from 0\.001 to 2592000"):
            act(seconds)
    assert breaker.state == "closed"
