"""The example is run as a user runs it: two real processes that speak MCP over stdio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "examples" / "hot_mcp_client.py"
TIMEOUT_S = 60.0


def play(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(CLIENT), *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_guarded_mcp_tool_opens_fails_fast_and_recovers_by_one_probe() -> None:
    done = play()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("upstream failing")] == [
        "upstream"
    ] * 3
    assert any("try again in" in line for line in lines)
    assert any("0 reached the upstream" in line for line in lines)
    assert any("10 calls at once: 1 probe, 9 rejected" in line for line in lines)
    assert lines[-1] == "the breaker opened, failed fast, and recovered by a single probe"
    # The server logs its transitions there, and nothing else has anything to say.
    assert "circuit 'search': closed -> open" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ERROR" not in done.stderr


def test_guarded_mcp_tool_opens_at_the_threshold_that_it_is_given() -> None:
    done = play("--failure-threshold=5", "--reset-timeout=1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("upstream failing") for line in done.stdout.splitlines()) == 5


def test_client_exits_with_1_when_the_breaker_does_not_stay_open() -> None:
    # Open for a millisecond: before ten calls are over, one of them is a probe.
    done = play("--reset-timeout=0.001")
    assert done.returncode == 1
    assert "FAILED: " in done.stderr
    assert "recovered" not in done.stdout
