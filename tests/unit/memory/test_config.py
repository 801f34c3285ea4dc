from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from memguard_native.errors import ConfigError, MemguardError
from memguard_native.memory.monitor import MemoryMonitor, start_memory_monitoring

NOT_A_NUMBER = [None, "60", b"60", True, False, [], 60j, Decimal(60), Fraction(60), object]
NOT_FINITE = [math.nan, math.inf, -math.inf, 10**400]


def refused(field: str, value: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        MemoryMonitor(**{field: value})
    error = caught.value
    assert error.field == field
    assert error.value is value
    assert repr(value) in str(error)
    return error


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, *NOT_FINITE, 0, 0.0, -1, -60.0, 0.0009, 2.6e6])
def test_interval_must_be_seconds_from_a_millisecond_to_30_days(value):
    assert "must be seconds from 0.001 to 2592000 (30 days)" in str(refused("interval", value))


@pytest.mark.parametrize("value", [0.001, 1, 60, 60.0, 2_592_000])
def test_interval_may_be_any_number_in_range(value):
    MemoryMonitor(interval=value)


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, *NOT_FINITE, 12.0, 2, 0, -12, 100_001, 10**30])
def test_window_must_be_an_int_from_three(value):
    expected = "must be an int from 3 to 100000: a slope needs three samples"
    assert expected in str(refused("window", value))


@pytest.mark.parametrize("value", [3, 12, 100_000])
def test_window_may_be_any_int_in_range(value):
    MemoryMonitor(window=value)


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, *NOT_FINITE, 0, 0.0, -0.0, -10])
def test_threshold_must_be_finite_and_positive(value):
    assert "must be a finite number > 0" in str(refused("threshold_mb_per_hour", value))


@pytest.mark.parametrize("value", [5e-324, 1, 10.0, 1e300])
def test_threshold_may_be_any_positive_number(value):
    MemoryMonitor(threshold_mb_per_hour=value)


@pytest.mark.parametrize("field", ["on_sample", "on_alert"])
@pytest.mark.parametrize("value", [0, "print", [print], True, False])
def test_callbacks_must_be_callable(field, value):
    assert "must be callable or None" in str(refused(field, value))


@pytest.mark.parametrize("field", ["on_sample", "on_alert"])
def test_callbacks_must_not_be_coroutine_functions(field):
    async def later(argument: object) -> None:
        raise AssertionError("nobody awaits this")

    assert "must not be a coroutine function" in str(refused(field, later))


@pytest.mark.parametrize("value", [None, 0, 1, "yes"])
def test_log_samples_must_be_a_bool(value):
    assert "must be True or False" in str(refused("log_samples", value))


@pytest.mark.parametrize("value", [0, "native", object(), lambda: None])
def test_probe_must_have_a_method_sample(value):
    assert "must have a method sample()" in str(refused("probe", value))


@pytest.mark.parametrize("value", [0, 1.5, "now", lambda: 0.0])
def test_clock_must_be_a_manual_clock(value):
    assert "must be a ManualClock or None" in str(refused("clock", value))


def test_start_memory_monitoring_refuses_what_the_monitor_refuses():
    with pytest.raises(ConfigError, match="window must be an int"):
        start_memory_monitoring(window=2)


def test_a_config_error_is_a_value_error_and_one_of_ours():
    error = refused("interval", 0)
    assert isinstance(error, ValueError)
    assert isinstance(error, MemguardError)


def test_positional_arguments_end_after_the_threshold():
    with pytest.raises(TypeError):
        MemoryMonitor(60.0, 12, 10.0, print)
