"""Breakers that several processes share: one word, one probe, nothing lost by a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory is for Linux"),
]

DRIVERS = Path(__file__).with_name("shared_drivers.py")


def run(program: str, count: int = 1, timeout: float = 100) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(DRIVERS), program, str(count)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("processes", [2, 8])
def test_failures_of_several_processes_add_up_exactly_to_the_threshold(processes):
    found = run("failures_add_up", processes)
    assert found == {"failures": processes, "transitions": 1, "state": "open"}


def test_eight_processes_make_exactly_one_probe_in_each_of_a_thousand_rounds():
    found = run("one_probe_a_round", 1000)
    assert found["probes"] == 1000
    assert found["transitions"] == {
        "closed->open": 1000,
        "open->half_open": 1000,
        "half_open->closed": 1000,
    }


def test_five_hundred_processes_killed_at_any_moment_wedge_nothing_and_lose_no_slot():
    found = run("killed_at_any_moment", 500)
    assert found["slots"] <= 32
    assert found["alive"] == 1
    assert found["longest_wait_in_leases"] < 3
    assert found["history"] > 0


def test_the_probe_of_a_killed_process_is_free_at_once():
    found = run("a_prober_is_killed", 20)
    assert found["longest_wait"] < 0.5


def test_a_forked_child_settles_none_of_its_parents_calls():
    found = run("forked_inside", 5)
    assert found["slot"] == 0
    assert found["stale"] > 0


def test_a_forked_child_does_not_hold_the_lock_of_another_thread():
    assert run("forked_under_the_lock")["waited"] < 1.0


def test_listeners_hear_of_other_processes():
    assert run("told_of_others")["heard"] == [
        ["shared", "open", "consecutive_failures", "host", None],
        ["shared", "closed", "reset", "manual", None],
        ["shared", "forced_open", "manual", "manual", "maintenance"],
    ]


def test_a_new_process_finds_the_rest_of_the_open_period_and_the_history():
    found = run("survives_all")
    assert found["state"] == "open"
    assert 400 < found["retry_after"] <= 500
    assert found["last_error"] == [
        "ValueError",
        "invalid literal for int() with base 10: 'no number'",
    ]
    assert found["failures"] == 1
    assert found["history"] == [7]
