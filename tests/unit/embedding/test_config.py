"""Every value of the configuration is checked at construction."""

from __future__ import annotations

import dataclasses
import math

import pytest

from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.errors import ConfigError

COUNTS = [
    "compute_threads",
    "max_batch_tokens",
    "max_queue_tokens",
    "max_request_tokens",
    "max_inputs",
    "max_body_bytes",
    "max_concurrent_requests",
]
TIMES = ["read_timeout", "queue_timeout", "batch_timeout", "drain_timeout"]


def test_the_defaults_are_valid_and_frozen():
    config = EmbeddingConfig()
    assert (config.max_inputs, config.max_request_tokens) == (2048, 524_288)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.backend = "other"  # type: ignore[misc]


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_a_count_must_be_a_positive_whole_number(field, value):
    with pytest.raises(ConfigError, match=f"{field} must be a whole number >= 1, got") as caught:
        EmbeddingConfig(**{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400, "8", True, None])
def test_a_time_must_be_a_positive_number_of_seconds(field, value):
    with pytest.raises(ConfigError, match=f"{field} must be a number of seconds > 0"):
        EmbeddingConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend", "tensorflow"),
        ("backend", None),
        ("model", ""),
        ("model", 7),
        ("revision", "main"),
        ("served_name", ""),
        ("served_name", "two\nlines"),
        ("served_name", "n" * 115),
        ("aliases", ["a"]),
        ("aliases", ("",)),
        ("aliases", (7,)),
        ("truncate", 1),
        ("mapped_weights", "yes"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        EmbeddingConfig(**{field: value})
    assert caught.value.field == field


def test_only_what_may_be_undecided_may_be_none():
    EmbeddingConfig(max_batch_tokens=None, max_queue_tokens=None, model=None, served_name=None)
