"""What clients are told, and how long they are told to wait."""

from __future__ import annotations

import pytest

from memguard_native.embedding.errors import (
    ApiError,
    ModelError,
    invalid,
    overloaded,
    retry_after_ms,
    too_large,
    unavailable,
)
from memguard_native.errors import MemguardError


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.3, 2.0, 60.0, 1e9])
def test_the_wait_is_always_within_bounds_and_spread(wait):
    waits = [retry_after_ms(wait) for _ in range(300)]
    assert all(25 <= ms <= 2000 for ms in waits)
    assert max(waits) > 1.2 * min(waits), "clients would come back together"


def test_the_wait_is_near_what_was_asked_for():
    assert all(400 <= retry_after_ms(0.5) <= 600 for _ in range(100))


@pytest.mark.parametrize(
    ("error", "status", "code", "kind", "waits"),
    [
        (invalid("x"), 400, "invalid_value", "invalid_request_error", False),
        (too_large("x"), 413, "request_too_large", "invalid_request_error", False),
        (overloaded("x", 1.0), 429, "overloaded", "rate_limit_error", True),
        (unavailable("x", 1.0), 503, "unavailable", "server_error", True),
    ],
)
def test_each_kind_of_error_has_its_status_and_code(error, status, code, kind, waits):
    assert (error.status, error.code, error.type) == (status, code, kind)
    assert (error.retry_after_ms is not None) is waits
    assert isinstance(error, MemguardError)
    assert str(error) == "x"


def test_a_model_error_names_file_problem_and_cure():
    error = ModelError("/m/config.json", "is damaged", "fetch it again")
    assert str(error) == "/m/config.json: is damaged; fetch it again"
    assert (error.path, error.problem, error.cure) == (
        "/m/config.json",
        "is damaged",
        "fetch it again",
    )
    assert str(ModelError("a", "b")) == "a: b"


def test_an_api_error_carries_its_parameter():
    assert ApiError(400, "c", "m", param="input").param == "input"
