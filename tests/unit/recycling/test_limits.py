"""The limits of one worker that can be counted."""

from __future__ import annotations

import random

import pytest

from memguard_native.recycling.limits import DrawnLimits, draw_limits, reached
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.reasons import Reason

NONE = DrawnLimits(None, None, None, None)
WORK = {"requests": 0, "inputs": 0, "tokens": 0, "age": 0.0}


class Fixed(random.Random):
    """Draws the same share of the range each time."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def policy(**fields):
    return RecyclePolicy(**fields).resolved(workers=1, limit_bytes=None, cgroup_limit_bytes=None)


ALL = policy(max_requests=1000, max_inputs=200, max_tokens=30, max_lifetime=60.0, jitter=0.5)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, DrawnLimits(1000, 200, 30, 60.0)),
        (0.5, DrawnLimits(1250, 250, 37, 75.0)),
        (1.0, DrawnLimits(1500, 300, 45, 90.0)),
    ],
)
def test_a_limit_is_drawn_from_itself_up_to_the_jitter_above(share, expected):
    assert draw_limits(ALL, Fixed(share)) == expected


def test_a_drawn_limit_is_never_below_what_was_said():
    source = random.Random(7)
    for _ in range(200):
        assert all(
            drawn >= said
            for drawn, said in zip(draw_limits(ALL, source), (1000, 200, 30, 60.0), strict=True)
        )


def test_two_workers_draw_different_limits():
    source = random.Random(7)
    assert draw_limits(ALL, source).requests != draw_limits(ALL, source).requests


def test_without_jitter_limits_are_what_was_said():
    exact = policy(max_requests=10, max_lifetime=1.5, jitter=0.0)
    assert draw_limits(exact, random.Random()) == DrawnLimits(10, None, None, 1.5)


def test_what_has_no_limit_draws_none():
    assert draw_limits(policy(max_requests=None), random.Random()) == NONE


@pytest.mark.parametrize(
    ("reason", "work"),
    [
        (Reason.requests, {"requests": 5}),
        (Reason.inputs, {"inputs": 6}),
        (Reason.tokens, {"tokens": 7}),
        (Reason.lifetime, {"age": 8.0}),
    ],
)
def test_each_limit_is_reached_by_its_own_figure(reason, work):
    limits = DrawnLimits(5, 6, 7, 8.0)
    [(name, value)] = work.items()
    assert reached(limits, **{**WORK, **work}) is reason
    assert reached(limits, **{**WORK, name: value - 1}) is None


def test_of_limits_reached_together_the_first_is_told():
    assert reached(DrawnLimits(5, 6, 7, 8.0), requests=5, inputs=6, tokens=7, age=8.0) == "requests"


def test_no_limit_is_never_reached():
    assert reached(NONE, requests=10**9, inputs=10**9, tokens=10**9, age=1e9) is None
