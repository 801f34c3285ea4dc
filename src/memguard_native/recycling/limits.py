"""The limits of one worker that can be counted: drawn once, so that workers do not reach theirs
together. Pure."""

from __future__ import annotations

import random
from typing import NamedTuple

from memguard_native.recycling.policy import ResolvedPolicy
from memguard_native.recycling.reasons import Reason


class DrawnLimits(NamedTuple):
    """None: no limit. `lifetime` is seconds."""

    requests: int | None
    inputs: int | None
    tokens: int | None
    lifetime: float | None


def draw_limits(policy: ResolvedPolicy, source: random.Random) -> DrawnLimits:
    """Each limit times 1 + U(0, jitter)."""

    def drawn(limit: float | None) -> float | None:
        return None if limit is None else limit * (1.0 + source.uniform(0.0, policy.jitter))

    def counted(limit: int | None) -> int | None:
        value = drawn(limit)
        return None if value is None else int(value)

    return DrawnLimits(
        requests=counted(policy.max_requests),
        inputs=counted(policy.max_inputs),
        tokens=counted(policy.max_tokens),
        lifetime=drawn(policy.max_lifetime),
    )


def reached(
    limits: DrawnLimits, *, requests: int, inputs: int, tokens: int, age: float
) -> Reason | None:
    """The first limit that is reached; `age` is seconds since the worker was ready."""
    for reason, value, limit in (
        (Reason.requests, requests, limits.requests),
        (Reason.inputs, inputs, limits.inputs),
        (Reason.tokens, tokens, limits.tokens),
        (Reason.lifetime, age, limits.lifetime),
    ):
        if limit is not None and value >= limit:
            return reason
    return None
