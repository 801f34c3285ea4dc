"""The price of a guarded call, in instructions: exact, so it is a gate on any machine."""

from __future__ import annotations

import pytest
from bench.suites import instructions

from bench import callgrind

pytestmark = pytest.mark.stress


def test_healthy_guarded_call_costs_at_most_30_instructions_over_the_trampoline() -> None:
    counted = callgrind.count_all(instructions.CALLS)
    assert counted["memguard"] - counted["trampoline"] <= instructions.CALL_BUDGET
    # A guard that were not called at all would pass the line above.
    assert counted["memguard"] > counted["bare call"]


def test_guarded_await_stays_within_its_share_of_a_wrapper_in_python() -> None:
    bare, ours, wrapper = callgrind.count_all(instructions.AWAITS).values()
    assert 0.0 < ours - bare <= instructions.AWAIT_BUDGET * (wrapper - bare)


def test_instruction_counts_repeat() -> None:
    case = ("x()", "def x(): pass")
    assert abs(callgrind.instructions(*case) - callgrind.instructions(*case)) < 0.5
