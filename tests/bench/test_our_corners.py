"""Our answers in the corners where breakers differ; docs/corners.md has those of the others."""

from __future__ import annotations

import pytest
from bench.corners.ask import ask
from bench.corners.probes import PROBES

ANSWERS = {
    "tries.async_crowd": "1",
    "tries.thread_crowd": "1",
    "verdicts.late_success": "stays open",
    "tries.late_failures": "ignored",
    "tries.cancelled": "slot back",
    "verdicts.cancelled": "neutral",
    "tries.hung": "one runs after a lease",
    "verdicts.keyboard_interrupt": "neutral",
    "forms.coroutine_function": "yes",
    "forms.generator": "counted / neutral",
    "forms.asynchronous_generator": "yes",
    "forms.without_decorator": "yes / yes",
    "listeners.raises": "logged once",
    "tries.ignored": "slot back",
    "waits.frame_locals": "no",
    "rejections.traceback_length": "1",
    "rejections.time_to_retry": "yes",
    "rejections.pickled": "all fields",
    "tries.recursion": "runs, the outer call decides",
    "waits.fork": "ok",
    "forms.methods": "all",
}


@pytest.mark.parametrize("probe", ANSWERS)
def test_our_answer(probe: str) -> None:
    assert ask("memguard", probe) == ANSWERS[probe]


def test_callers_do_not_wait_for_each_other() -> None:
    # 5 calls of 10 ms on each of 8 threads: 50 ms together, 400 ms in a row.
    assert 50 <= int(ask("memguard", "waits.parallel")) < 200


def test_a_long_window_costs_what_a_short_one_costs() -> None:
    assert float(ask("memguard", "waits.window")) < 1.5


def test_every_probe_is_asked_here() -> None:
    assert {*ANSWERS, "waits.parallel", "waits.window"} == set(PROBES)
