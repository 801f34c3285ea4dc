"""`memguard breakers`: looks without touching, acts as one of the processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memguard_native import CircuitBreaker, MemoryMonitor, State
from memguard_native import segment as segments
from memguard_native.breaker import events
from memguard_native.cli.main import main
from memguard_native.memory.learnt import Learnt, keep_learnt
from memguard_native.segment import attach, path_of
from memguard_native.testing import FakeProbe, ManualClock


@pytest.fixture
def breaker():
    return CircuitBreaker("search", 2, scope="host", failure_rate=0.5)


def fail(breaker, times):
    for _ in range(times):
        with pytest.raises(ZeroDivisionError):
            breaker.call(lambda: 1 / 0)


def test_breakers_and_workers_are_shown(breaker, capsys):
    MemoryMonitor(probe=FakeProbe(ManualClock(1.0)), scope="host").tick()
    fail(breaker, 2)
    assert main(["breakers"]) == 0
    path, _, head, row, _, workers, worker = capsys.readouterr().out.splitlines()
    assert path == f"{path_of('default')}: 1 breakers, 1 workers"
    assert head.split()[:4] == ["BREAKER", "STATE", "FAILED", "WINDOW"]
    name, state, failed, window, rejected, _retry, cause, *error = row.split()
    assert (name, state, failed, window, rejected) == ("search", "open", "2", "2/2", "0")
    assert (cause, " ".join(error)) == (
        "consecutive_failures",
        "ZeroDivisionError: division by zero",
    )
    assert workers.split()[:3] == ["SLOT", "PID", "ALIVE"]
    assert worker.split()[2:4] == ["yes", "1"]
    assert worker.split()[-4:] == ["0", "100.0", "1", "-"]


def test_looking_writes_nothing(breaker, capsys):
    fail(breaker, 1)
    content = path_of("default").read_bytes()
    copy = path_of("copy")  # the file itself is written by the heartbeat of this process
    copy.write_bytes(content)
    copy.chmod(0o400)
    for arguments in ([], ["search"], ["--json"]):
        assert main(["breakers", "--namespace", "copy", *arguments]) == 0
    assert copy.read_bytes() == content
    assert not copy.with_name(copy.name + ".lock").exists()


def test_json_has_everything(breaker, capsys):
    fail(breaker, 1)
    assert main(["breakers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["namespace"]) == (1, "default")
    (one,) = found["breakers"]
    assert (one["name"], one["scope"], one["failures"]) == ("search", "host", 1)
    assert one["rules"]["failure_threshold"] == 2
    assert found["workers"][0]["is_alive"]


def test_one_breaker_is_shown_in_detail(breaker, capsys):
    assert main(["breakers", "search"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["state", "closed"] in lines
    assert ["failure_threshold", "2"] in lines


def test_it_is_shown_again_until_interrupted(breaker, capsys, monkeypatch):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["breakers", "--json", "--watch", "0.5"]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["schema"] for line in lines] == [1, 1, 1]
    assert waits == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("is_tty", "arguments", "screens"), [(True, [], 2), (False, [], 0), (True, ["--json"], 0)]
)
def test_only_a_terminal_is_cleared(breaker, capsys, monkeypatch, is_tty, arguments, screens):
    waits = iter([None])

    def sleep(_seconds):
        try:
            next(waits)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_tty)
    assert main(["breakers", "--watch", *arguments]) == 130
    assert capsys.readouterr().out.count("\x1b[H\x1b[2J") == screens


def test_json_has_the_memory_history_of_workers(capsys):
    MemoryMonitor(probe=FakeProbe(ManualClock(1.0)), scope="host").tick()
    assert main(["breakers", "--json"]) == 0
    (worker,) = json.loads(capsys.readouterr().out)["workers"]
    (sample,) = worker["history"]
    assert {"monotonic_ns", "wall_ns", "rss_bytes", "private_bytes"} <= sample.keys()
    assert (sample["pid"], sample["generation"]) == (os.getpid(), 1)


def test_json_and_page_have_what_a_worker_has_learnt(capsys):
    core = attach().core
    core.set_requests(41)
    keep_learnt(core, Learnt(state="alert", rate_mb_per_hour=12.0, mb_per_1000_requests=0.5))
    assert main(["breakers", "--json"]) == 0
    (worker,) = json.loads(capsys.readouterr().out)["workers"]
    assert (worker["learnt"]["state"], worker["learnt"]["rate_mb_per_hour"]) == ("alert", 12.0)
    main(["breakers"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.endswith("alert, 12.0 MB/h, 0.5 MB/1000 requests")
    assert row.split()[6] == "41"


def test_what_an_owner_before_has_learnt_is_told_as_its_own(capsys):
    core = attach().core
    keep_learnt(core, Learnt(state="alert", cause="mmap", rate_mb_per_hour=12.0))
    core.release_slot()
    core.claim_slot(os.stat("/proc/self/ns/pid").st_ino)
    main(["breakers"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("alert, 12.0 MB/h, mmap, of an owner before")


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        (["trip", "--for", "15m", "--reason", "bad deploy"], State.open),
        (["force-open", "--for", "1h"], State.forced_open),
        (["disable"], State.disabled),
        (["shadow"], State.shadow),
        (["reset"], State.closed),
        (["auto"], State.closed),
    ],
)
def test_an_action_holds_for_all_processes(breaker, capsys, arguments, state):
    assert main(["breakers", "search", *arguments]) == 0
    assert capsys.readouterr().out == f"search: {state}\n"
    assert breaker.state is state
    assert breaker.config.failure_threshold == 2


def test_a_time_and_a_reason_are_told(breaker, capsys):
    main(["breakers", "search", "trip", "--for", "2m", "--reason", "bad deploy"])
    assert breaker.retry_after == pytest.approx(120, abs=1)
    assert breaker.snapshot().detail == "bad deploy"


def test_auto_ends_the_shadow_of_another_process(capsys):
    breaker = CircuitBreaker("search", scope="host", enforce=0.5)
    assert main(["breakers", "search", "shadow"]) == 0
    assert main(["breakers", "search", "auto", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["breaker"]["state"] == "closed"
    assert breaker.config.enforce == 0.5


def test_an_action_changes_no_rule_and_announces_none(breaker, capsys):
    heard = []
    stop = events.subscribe(lambda event: heard.append(event.reason))
    main(["breakers", "search", "trip"])
    assert events.flush()
    stop()
    assert heard == ["manual"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serch"], 2, "did you mean 'search'? there: 'search'"),
        (["serch", "trip"], 2, "did you mean 'search'?"),
        (["\udcff", "trip"], 2, "name must be one of the shared breakers; there: 'search'"),
        (["--namespace", "nowhere"], 1, "there is no such segment"),
        (["--namespace", "a b"], 2, "namespace must be"),
        (["search", "reset", "--for", "5s"], 2, "--for is for the actions trip, force-open"),
        (["search", "reset", "--reason", "x"], 2, "--reason is for the actions"),
        (["search", "trip", "--for", "soon"], 2, 'must be a duration such as "30s"'),
        (["search", "trip", "--for", "0s"], 2, "--for must be seconds from 0.001"),
        (["search", "disable", "--for", "99d"], 2, "--for must be seconds from 0.001"),
        (["--for", "5s"], 2, "--for is for the actions trip, force-open"),
        (["search", "trip", "--watch"], 2, "--watch is for looking, without an action"),
        (["--watch", "0"], 2, "--watch must be seconds above 0, up to 86400"),
        (["--watch", "nan"], 2, "--watch must be seconds above 0, up to 86400"),
        (["--watch", "inf"], 2, "--watch must be seconds above 0, up to 86400"),
    ],
)
def test_what_is_wrong_is_one_sentence(breaker, capsys, arguments, code, words):
    assert main(["breakers", *arguments]) == code
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert breaker.state is State.closed


def test_an_action_that_cannot_reach_the_others_fails(breaker, capsys, monkeypatch):
    segments._attached.clear()  # as in another process
    monkeypatch.setattr(segments, "_LOCK_TIMEOUT", 0.05)
    with segments._locked(path_of("default")):
        assert main(["breakers", "search", "trip"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "another process holds its lock" in captured.err
    assert breaker.state is State.closed


def test_it_makes_neither_a_segment_nor_a_breaker(segment_directory, capsys):
    assert main(["breakers", "x", "trip"]) == 1
    assert not segment_directory.exists()
    attach()
    assert main(["breakers", "x", "trip"]) == 2
    assert attach().core.breaker_names() == {}


def test_what_a_stranger_wrote_into_the_file_does_no_harm_to_a_terminal(breaker, capsys):
    content = path_of("default").read_bytes()
    with path_of("default").open("r+b") as file:
        file.seek(content.index(b"search"))
        file.write(b"\x1b[2Jx\xff")
    assert main(["breakers"]) == main(["breakers", "\x1b[2Jx\ufffd"]) == 0
    assert main(["breakers", "other"]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\\x1b[2Jx" in captured.out


def test_it_runs_as_a_command(breaker):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "memguard_native",
            "breakers",
            "search",
            "force-open",
            "--for",
            "1m",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "search: forced_open\n"
    assert breaker.state is State.forced_open


def test_a_watch_ends_by_an_interrupt(breaker):
    command = [sys.executable, "-m", "memguard_native", "breakers", "--json", "--watch", "0.01"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["breakers"][0]["name"] == "search"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait(60) == 130


def test_the_documented_columns_are_those_that_are_shown(breaker, capsys):
    main(["breakers"])
    page = (Path(__file__).parents[3] / "docs/command-line.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("BREAKER", "SLOT")):
            assert any(line.split() == shown.split() for shown in page.splitlines())
