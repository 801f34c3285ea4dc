"""`memguard doctor`: what it finds, and what it removes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from memguard_native import CircuitBreaker
from memguard_native.cli.main import main
from memguard_native.segment import attach, path_of

WORKER = """
import sys, time
from memguard_native.segment import attach
attach(sys.argv[1])
print("attached", flush=True)
time.sleep(60)
"""


@pytest.fixture
def killed(segment_directory):
    """A segment whose only owner was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, "killed"], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "attached\n"
        worker.send_signal(signal.SIGKILL)
    return path_of("killed")


def findings(capsys, *arguments):
    code = main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    return code, found


def test_with_nothing_shared_all_is_well(capsys):
    assert main(["doctor"]) == 0
    assert "no process shares anything yet" in capsys.readouterr().out


def test_segments_and_their_owners_are_shown(capsys):
    CircuitBreaker("a", scope="host")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "MiB free" in out
    assert f"{path_of('default')}: 1 of 64 breakers; owners: {os.getpid()}; made 20" in out


def test_a_segment_without_living_owners_is_told_and_removed(killed, capsys):
    code, found = findings(capsys)
    assert code == 0
    assert "owners: none and 1 dead" in found["findings"][1]["text"]
    assert "memguard doctor --clean removes it" in found["findings"][1]["cure"]
    code, found = findings(capsys, "--clean")
    assert (code, found["removed"]) == (0, [str(killed)])
    assert list(killed.parent.iterdir()) == []


def test_a_segment_with_a_living_owner_is_kept(killed, capsys):
    attach("killed")
    assert findings(capsys, "--clean")[1]["removed"] == []
    assert killed.exists()


def test_a_damaged_segment_is_serious_and_removed(killed, capsys):
    os.truncate(killed, 5)
    code, found = findings(capsys)
    assert code == 1
    assert found["findings"][1]["text"] == "it is damaged, or not a segment"
    assert found["findings"][1]["is_serious"]
    assert findings(capsys, "--clean") == (
        0,
        {**found, "removed": [str(killed)], "findings": [found["findings"][0]]},
    )


def test_what_is_somebody_elses_is_serious_and_kept(killed, capsys):
    killed.chmod(0o644)
    code = main(["doctor", "--clean"])
    captured = capsys.readouterr()
    assert code == 1
    assert "SERIOUS" in captured.out
    assert "others may use it: its mode is 0644, not 0600" in captured.out
    assert "not removed" in captured.err
    assert killed.exists()


def test_an_unsafe_directory_is_serious(segment_directory, capsys):
    segment_directory.mkdir()
    segment_directory.chmod(0o777)
    code, found = findings(capsys)
    assert code == 1
    assert found["findings"][0]["cure"] == f"chmod 700 {segment_directory}"


def test_half_made_files_are_removed_when_they_are_old(killed, capsys):
    fresh, old = (killed.with_name(f"a-v1.seg.{16 * digit}.new") for digit in "12")
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    _, found = findings(capsys)
    assert [one["subject"] for one in found["findings"]][2:] == [str(old)]
    assert str(old) in findings(capsys, "--clean")[1]["removed"]
    assert fresh.exists()


def test_it_runs_as_a_command(killed):
    command = [sys.executable, "-m", "memguard_native", "doctor", "--clean"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0] == f"removed  {killed}"
