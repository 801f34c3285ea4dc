"""`memguard doctor`: what it finds, and what it removes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memguard_native import CircuitBreaker, _core
from memguard_native import segment as segments
from memguard_native.cli import doctor
from memguard_native.cli.main import main
from memguard_native.memory.learnt import Learnt, keep_learnt
from memguard_native.recycling import contract
from memguard_native.segment import attach, path_of

WORKER = """
import sys, time
from memguard_native.segment import attach
attach(sys.argv[1])
print("attached", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def groups(monkeypatch, tmp_path):
    """Where control groups lie: none is known, so the system of the tests changes nothing."""
    monkeypatch.setattr(doctor, "_CGROUPS", str(tmp_path / "groups"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524288))
    (tmp_path / "groups").mkdir()
    return tmp_path / "groups"


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
    assert f"MiB free; of user {os.getuid()}, mode 0700" in out
    owner = f"{os.getpid()} in slot 0"
    assert f"{path_of('default')}: 1 of 64 breakers; owners: {owner}; 7." in out


def test_programs_are_told_the_facts(killed, capsys):
    (_, finding, *_) = findings(capsys)[1]["findings"]
    facts = finding["facts"]
    (owner,) = facts.pop("owners")
    assert owner == {
        "slot": 0,
        "pid": facts["creator"],
        "is_alive": False,
        "generation": 1,
        "learnt": None,
    }
    assert (facts["namespace"], facts["breakers"], facts["repairs"]) == ("killed", 0, 0)
    assert facts["bytes"] == killed.stat().st_size
    assert facts["created"] == pytest.approx(time.time(), abs=60)


def test_what_an_owner_has_learnt_is_told(capsys):
    learnt = Learnt(state="alert", cause="mmap", rate_mb_per_hour=23.44)
    keep_learnt(attach().core, learnt)
    (_, finding, *_) = findings(capsys)[1]["findings"]
    assert f"owners: {os.getpid()} in slot 0 (alert, 23.4 MB/h, mmap); " in finding["text"]
    assert finding["facts"]["owners"][0]["learnt"]["rate_mb_per_hour"] == 23.44


def test_a_segment_without_living_owners_is_told_and_removed(killed, capsys):
    code, found = findings(capsys)
    assert code == 0
    assert " in slot 0 (dead)" in found["findings"][1]["text"]
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
        {
            **found,
            "removed": [str(killed)],
            "findings": [found["findings"][0], *found["findings"][2:]],
        },
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
    assert [one["subject"] for one in found["findings"]][2:-3] == [str(old)]
    assert str(old) in findings(capsys, "--clean")[1]["removed"]
    assert fresh.exists()


def test_one_of_another_process_namespace_is_judged_where_its_processes_run(
    killed, capsys, monkeypatch
):
    real = segments._namespace_id
    monkeypatch.setattr(segments, "_namespace_id", lambda kind: 77 if kind == "pid" else real(kind))
    _, found = findings(capsys, "--clean")
    assert found["removed"] == []
    assert found["findings"][1]["facts"]["owners"][0]["is_alive"] is None
    assert "dead" not in found["findings"][1]["text"]
    assert found["findings"][1]["cure"] == "run memguard doctor where its processes run"


def test_one_of_another_time_namespace_is_not_said_to_be_removed(killed, capsys, monkeypatch):
    real = segments._namespace_id
    monkeypatch.setattr(
        segments, "_namespace_id", lambda kind: 77 if kind == "time" else real(kind)
    )
    code, found = findings(capsys, "--clean")
    assert (code, found["removed"]) == (1, [])
    assert "a directory or a namespace of its own" in found["findings"][1]["cure"]


def test_a_damaged_file_that_was_kept_is_told_and_stays_beside_a_segment(killed, capsys):
    os.truncate(killed, 5)
    attach("killed")
    damaged = killed.with_name(killed.name + ".damaged")
    code, found = findings(capsys, "--clean")
    assert (code, found["removed"]) == (0, [])
    assert found["findings"][2]["subject"] == str(damaged)
    assert damaged.exists()


def test_what_lies_there_without_its_segment_is_removed(killed, capsys):
    killed.unlink()
    lock = killed.with_name(killed.name + ".lock")
    assert [one["subject"] for one in findings(capsys)[1]["findings"]][1:-3] == [str(lock)]
    assert findings(capsys, "--clean")[1]["removed"] == [str(lock)]
    assert list(killed.parent.iterdir()) == []


def test_a_lock_that_is_held_keeps_a_segment(killed, capsys, monkeypatch):
    monkeypatch.setattr(segments, "_LOCK_TIMEOUT", 0.05)
    with segments._locked(killed):
        assert main(["doctor", "--clean"]) == 0
    assert "not removed: " in capsys.readouterr().err
    assert killed.exists()


def test_the_name_of_a_file_does_no_harm_to_a_terminal(killed, capsys):
    hostile = killed.with_name("\x1b[2J\n-v1.seg")
    hostile.touch(0o644)
    assert main(["doctor", "--clean"]) == 1
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\\x1b[2J\\n-v1.seg" in captured.out


def test_it_runs_as_a_command(killed):
    command = [sys.executable, "-m", "memguard_native", "doctor", "--clean"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0] == f"removed  {killed}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jemalloc", "jemalloc"),
        ("mimalloc", "mimalloc, which does not tell what is free"),
        ("unknown", "unknown, so that it cannot be asked"),
    ],
)
def test_malloc_is_shown_by_its_name(monkeypatch, capsys, name, text):
    monkeypatch.setattr(_core, "allocator_name", lambda: name)
    code, found = findings(capsys)
    assert code == 0
    finding = found["findings"][-3]
    assert (finding["subject"], finding["text"]) == ("malloc", text)
    assert finding["facts"] == {"allocator": name}
    assert (finding["cure"] is not None) == (name == "unknown")


@pytest.mark.parametrize(
    ("limits", "text", "has_cure"),
    [
        ((1024, 524288), "1024 for a process, which may raise it to 524288", False),
        ((1024, 1024), "1024 for a process, which may raise it to 1024", True),
        ((4096, 4096), "4096 for a process, which may raise it to 4096", False),
        ((1024, -1), "1024 for a process, which may raise it to any number", False),
    ],
)
def test_too_few_descriptors_are_told(monkeypatch, capsys, limits, text, has_cure):
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    code, found = findings(capsys)
    finding = found["findings"][-2]
    assert (code, finding["subject"], finding["text"]) == (0, "file descriptors", text)
    assert (finding["cure"] is not None) == has_cure


@pytest.mark.parametrize(
    ("own", "where"), [("/", ""), ("/a", "a"), ("/a/b", "a"), ("/a/b", "a/b"), ("/../x", "")]
)
def test_a_group_that_is_killed_as_a_whole_is_told(monkeypatch, capsys, groups, own, where):
    (groups / "a/b").mkdir(parents=True)
    for path in (groups, groups / "a", groups / "a/b"):
        (path / "memory.oom.group").write_text("0\n")
    (groups / where / "memory.oom.group").write_text("1\n")
    read = doctor._text
    monkeypatch.setattr(
        doctor,
        "_text",
        lambda path: f"4:memory:/y\n0::{own}\n" if path.name == "cgroup" else read(path),
    )
    code, found = findings(capsys)
    finding = found["findings"][-2]
    assert (code, finding["subject"]) == (0, str(groups / where / "memory.oom.group"))
    assert "kills the supervisor along with its workers" in finding["text"]
    assert "OOMPolicy=continue" in finding["cure"]


def test_groups_beside_the_own_one_are_not_looked_at(monkeypatch, capsys, groups):
    (groups / "b").mkdir()
    (groups / "b/memory.oom.group").write_text("1\n")
    read = doctor._text
    monkeypatch.setattr(
        doctor, "_text", lambda path: "0::/a\n" if path.name == "cgroup" else read(path)
    )
    assert "memory.oom.group" not in json.dumps(findings(capsys)[1])


def test_uvicorn_has_what_handing_over_relies_on(capsys):
    finding = findings(capsys)[1]["findings"][-1]
    assert finding["subject"] == "uvicorn"
    assert finding["facts"]["broken_hooks"] == []
    assert finding["text"] == f"{finding['facts']['version']}, connections can be handed over"


def test_a_uvicorn_that_has_changed_is_told(monkeypatch, capsys):
    monkeypatch.setattr(contract, "broken_hooks", lambda: ["H11Protocol.transport"])
    code, found = findings(capsys)
    assert code == 0
    assert found["findings"][-1]["text"].endswith("not handed over: H11Protocol.transport")
    assert "pip install 'memguard-native[serve]'" in found["findings"][-1]["cure"]


def test_without_uvicorn_it_says_what_needs_it(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name)
    )
    code, found = findings(capsys)
    assert (code, found["findings"][-1]["text"]) == (0, "is not installed")
    assert "memguard serve needs it" in found["findings"][-1]["cure"]


def test_the_documented_lines_are_those_that_are_shown(killed, capsys):
    for name in "ab":
        CircuitBreaker(name, scope="host")
    main(["doctor", "--clean"])
    page = (Path(__file__).parents[3] / "docs/command-line.md").read_text()
    shown = page.partition("$ memguard doctor --clean\n")[2].partition("```")[0]
    assert shape(capsys.readouterr().out) == shape(shown.replace(", 4712 in slot 1", ""))


def shape(text):
    """Its lines without paths and numbers."""
    return re.sub(r"\d+", "0", re.sub(r"/\S+", "PATH", text)).splitlines()
