"""The rules of a `BreakerConfig` in the form that the native core takes."""

from __future__ import annotations

from typing import cast

from memguard_native import _core
from memguard_native.breaker import outcome
from memguard_native.breaker.config import BreakerConfig


def policy_of(config: BreakerConfig, enforce_by_auto: float | None = None) -> _core.Policy:
    """What the core goes by: numbers as they are, the user's functions so that none of them raises.

    A breaker adopts it; another breaker needs another.
    """
    return _core.Policy(
        failure_threshold=config.failure_threshold,
        reset_timeout=config.reset_timeout,
        max_reset_timeout=cast("float", config.max_reset_timeout),
        probe_timeout=cast("float", config.probe_timeout),
        success_threshold=config.success_threshold,
        half_open_max=config.half_open_max,
        lost_probe_fails=config.probe_expiry == "failure",
        backoff_factor=config.backoff_factor,
        jitter=config.jitter,
        jitter_mode=config.jitter_mode,
        lump_interval=config.lump_interval,
        enforce=config.enforce,
        enforce_by_auto=config.enforce if enforce_by_auto is None else enforce_by_auto,
        has_active_probe=config.probe is not None,
        monitor_interval=config.monitor_interval,
        max_in_flight=outcome.max_in_flight(config),
        count_calls=config.counts_calls,
        failure_rate=config.failure_rate,
        slow_rate=config.slow_rate,
        slow_call_duration=config.slow_call_duration,
        count_window=config.count_window,
        time_window=config.time_window,
        minimum_calls=cast("int", config.minimum_calls),
        classify=outcome.classifier(config),
        classify_result=outcome.result_classifier(config),
        reopen_after=outcome.reopen_wait(config),
        backoff=outcome.backoff_wait(config),
        trip_on_failure=outcome.trip_hook(config, "failure"),
        trip_on_verdict=outcome.trip_hook(config, "verdict"),
        trip_on_admission=outcome.trip_hook(config, "admission"),
        fallback=outcome.fallback_function(config),
        on_event=outcome.inline_listener(config),
        count_base_exceptions=config.count_base_exceptions,
    )
