"""`memguard watch`: what it shows, writes and leaves behind. Time stands still, memory obeys."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

from memguard_native.cli import watch
from memguard_native.cli.main import main
from memguard_native.errors import ProcessDeniedError, ProcessGoneError
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.trace_file import read_trace

MB = 2**20


class FakeProcess:
    """A process that grows by so much an hour, and its clock."""

    pid = 4711
    name = "worker"

    def __init__(self, mb_per_hour: float = 60.0, lives: float = float("inf")) -> None:
        self.now = 1000.0
        self._start = self.now
        self._mb_per_hour = mb_per_hour
        self._lives = lives
        self.interrupted_at = float("inf")
        self.is_slow_at: int | None = None
        self.times: list[float] = []

    def sample(self) -> MemorySample:
        passed = self.now - self._start
        if passed > self._lives:
            raise ProcessGoneError(self.pid)
        self.times.append(passed)
        if len(self.times) == self.is_slow_at:
            self.now += 150
        private = round((100 + self._mb_per_hour * passed / 3600) * MB)
        return MemorySample(
            round(self.now * 1e9), round(passed * 1e9),
            rss_bytes=private + 5 * MB, anon_bytes=private, swap_bytes=0, threads=3,
        )  # fmt: skip

    def age(self) -> float:
        return 100.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now - self._start >= self.interrupted_at:
            raise KeyboardInterrupt


@pytest.fixture
def process():
    return FakeProcess()


@pytest.fixture
def run(monkeypatch):
    """run(process, *arguments) is the exit code of a watch of it."""

    def run(process: FakeProcess, *arguments: str) -> int:
        def run_session(options: argparse.Namespace) -> int:
            watch._check(options)
            return watch.Session(options, process, clock=lambda: process.now).run()

        monkeypatch.setattr(watch, "run", run_session)
        return main(["watch", "-p", "4711", *arguments])

    return run


def test_a_line_is_printed_for_each_sample(run, process, capsys):
    assert run(process, "--for", "2m", "--rule", "window") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1:] for line in lines[:3]] == [
        [f"private {mb}.0 MB", f"rss {mb + 5}.0 MB", "threads 3", "learning"]
        for mb in (100, 101, 102)
    ]
    assert lines[3:] == [
        "worker, process 4711, was watched: 3 samples in 2 min. "
        "TOO EARLY: not watched for long enough to tell."
    ]


def test_samples_are_taken_by_the_plan_and_not_in_a_bunch_after_a_pause(run, process, capsys):
    process.is_slow_at = 2  # 150 s late: two samples are left out
    assert run(process, "--for", "6m") == 0
    assert process.times == [0, 60, 240, 300, 360]


def test_an_alert_is_told(run, process, capsys):
    assert run(process, "--for", "15m", "--rule", "window") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[11].endswith("alert  +60.0 MB/h")
    assert lines[-1] == (
        "worker, process 4711, was watched: 16 samples in 15 min. "
        "NOTICE: memory grows by 60.0 MB/h; the window rule cannot tell a leak."
    )
    process.now = process._start
    assert run(process, "--for", "15m", "--rule", "window", "--fail-on-leak") == 3


def test_minutes_can_be_compressed(run, process, capsys):
    assert run(process, "-i", "0.25s", "--minute-s", "0.25", "--for", "3s", "--rule", "window",
               "--threshold", "14000") == 0  # fmt: skip
    assert "alert" not in capsys.readouterr().out
    fast = FakeProcess(mb_per_hour=60 * 240)
    assert run(fast, "-i", "0.25s", "--minute-s", "0.25", "--for", "3s", "--rule", "window") == 0
    assert "alert  +60.0 MB/h" in capsys.readouterr().out


def test_the_end_of_the_process_is_a_normal_end(run, capsys, tmp_path):
    path = tmp_path / "x.csv"
    assert run(FakeProcess(lives=150), "-o", str(path)) == 0
    *_, last, written = capsys.readouterr().out.splitlines()
    assert last.startswith("worker, process 4711, has ended: 3 samples in 3 min. TOO EARLY")
    assert written == f"Written: {path}."
    assert len(list(read_trace(path))) == 3


def test_ctrl_c_leaves_trace_and_picture(run, process, capsys, tmp_path):
    trace, picture = tmp_path / "x.csv", tmp_path / "x.png"
    process.interrupted_at = 240
    assert run(process, "-o", str(trace), "--png", str(picture)) == 130
    assert len(list(read_trace(trace))) == 4
    assert picture.read_bytes()[:4] == b"\x89PNG"
    *_, last, written = capsys.readouterr().out.splitlines()
    assert "4 samples in 4 min" in last
    assert written == f"Written: {trace}, {picture}."


def test_each_row_is_in_the_file_before_the_next_sample(run, process, tmp_path, monkeypatch):
    path, seen = tmp_path / "x.csv", []
    wait = process.wait

    def look(seconds):
        seen.append(len(path.read_text().splitlines()))
        wait(seconds)

    process.wait = look
    assert run(process, "--for", "2m", "-o", str(path)) == 0
    assert seen == [2, 3]


def test_what_it_writes_can_be_replayed(run, process, tmp_path, capsys):
    path = tmp_path / "x.csv"
    assert run(process, "--for", "20m", "-o", str(path), "--rule", "window") == 0
    watched = capsys.readouterr().out
    assert main(["replay", str(path), "--rule", "window"]) == 0
    replayed = capsys.readouterr().out.splitlines()[0]
    assert "NOTICE: memory grows by 60.0 MB/h" in watched
    assert "NOTICE: memory grows by 60.0 MB/h" in replayed


def test_json_is_an_object_a_line(run, process, capsys):
    assert run(process, "--for", "12m", "--rule", "window", "--json", "--limit", "2GiB") == 0
    *samples, end = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [one["sample"] for one in samples] == list(range(13))
    first = samples[0]
    assert (first["schema"], first["pid"], first["private_bytes"]) == (1, 4711, 100 * MB)
    assert (first["state"], first["alert"]) == ("learning", None)
    assert (first["limit_bytes"], first["limit_source"]) == (2**31, "config")
    assert samples[-1]["alert"]["rate_mb_per_hour"] == pytest.approx(60)
    assert (end["schema"], end["ended"], end["samples"]) == (1, "stopped", 13)
    assert len(end["alerts"]) == 1


def test_a_terminal_is_drawn_anew(run, process, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(process, "--for", "12m", "--limit", "2GiB", "-o", os.devnull) == 0
    *_, page, end = capsys.readouterr().out.split("\x1b[H\x1b[2J")
    lines = page.splitlines()
    assert lines[0] == "worker, process 4711: 13 samples, 12 min, every 1 min"
    assert lines[3].startswith("▁")
    assert lines[4] == "100.0 to 112.0 MB"
    head = lines.index("TIME      PRIVATE MB  CHANGE  RSS MB  SWAP MB  THREADS")
    assert [line.split()[1:] for line in lines[head + 1 : head + 11]] == [
        [f"{mb}.0", "+1.0", f"{mb + 5}.0", "0.0", "3"] for mb in range(103, 113)
    ]
    assert "The limit is 2.00 GB (config)." in lines
    assert f"Ctrl-C ends it and leaves {os.devnull}." in lines
    # At the end the table stays, and what is no longer true goes.
    assert lines[head] in end
    assert "Ctrl-C" not in end
    assert end.splitlines()[-1] == f"Written: {os.devnull}."


def test_a_page_fits_into_a_small_terminal(run, process, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 15)))
    names = ["-o", os.devnull, "--limit", "200M"]
    assert run(process, "--for", "70m", "--warm-up", "1s", *names) == 0
    *pages, end = capsys.readouterr().out.split("\x1b[H\x1b[2J")
    assert max(map(len, end.splitlines())) < 60
    assert "is reached in" in pages[-1].replace("\n", " ")
    for page in pages[1:]:
        lines = page.splitlines()
        assert len(lines) < 15
        assert max(map(len, lines)) < 60
    assert pages[-1].splitlines()[-1] == f"Ctrl-C ends it and leaves {os.devnull}."


@pytest.mark.parametrize("command", ["watch", "replay"])
def test_a_picture_that_cannot_be_written_is_told_before_the_work(run, process, capsys, command):
    if command == "watch":
        assert run(process, "--png", "/nowhere/x.png") == 2
    else:
        assert main(["replay", "tests/traces/leak_dict_12.csv", "--png", "/nowhere/x.png"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "memguard: --png must be a file in a folder that exists and can be written, "
        "got '/nowhere/x.png'\n"
    )


@pytest.mark.parametrize("pid", ["0", "-5", "4294967299"])
def test_what_can_be_no_process_id_is_wrong_usage(capsys, pid):
    assert main(["watch", "-p", pid]) == 2
    assert capsys.readouterr().err == (
        f"memguard: --pid must be the id of a process, above 0, got {pid}\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error():
    watched = [sys.executable, "-m", "memguard_native", "watch", "-p", str(os.getpid())]
    with subprocess.Popen(
        [*watched, "-i", "0.01s", "--for", "20s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ProcessGoneError(4711), 4, "there is no process 4711"),
        (ProcessDeniedError(4711, "no"), 5, "process 4711 may not be looked at: no; run as its "
         "user or root"),
    ],
)  # fmt: skip
def test_one_that_cannot_be_watched_has_its_exit_code(run, process, capsys, error, code, text):
    def sample():
        raise error

    process.sample = sample
    assert run(process) == code
    assert capsys.readouterr().err == f"memguard: {text}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-p", "0"], "--pid must be the id of a process, above 0, got 0"),
        (["--minute-s", "0"], "--minute-s must be a finite number > 0, got 0.0"),
        (["-i", "often"], "--interval must be a duration"),
        (["-i", "0"], "interval must be"),
        (["--for", "ever"], "--for must be a duration"),
        (["--rule", "x"], "rule must be one of"),
    ],
)
def test_wrong_usage_exits_with_2(run, process, capsys, arguments, problem):
    assert run(process, *arguments) == 2
    assert problem in capsys.readouterr().err


def test_without_matplotlib_nothing_is_watched_first(run, process, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(process, "--png", "x.png") == 2
    assert process.times == []


# --- the whole of it ------------------------------------------------------------------------------


def test_a_real_process_is_watched_until_ctrl_c(tmp_path):
    path = tmp_path / "x.csv"
    command = [sys.executable, "-m", "memguard_native", "watch", "-p", str(os.getpid()), "-i",
               "0.05s", "-o", str(path)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert all("private" in line for line in lines)
    assert rest.splitlines()[-2].split(": ")[1].startswith(f"{len(list(read_trace(path)))} samples")


def test_a_process_that_ends_is_noticed_at_once():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        command = [sys.executable, "-m", "memguard_native", "watch", "-p", str(child.pid), "-i",
                   "10m"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            child.communicate(b"\n")
            rest, _ = process.communicate(timeout=60)
    assert "private" in first
    assert f"process {child.pid}, has ended: 1 sample in " in rest
    assert process.returncode == 0


def test_a_thread_of_the_kernel_is_refused(run, process, capsys):
    process.sample = lambda: MemorySample(1, 1, threads=1)
    assert run(process, "--for", "2h") == 2
    told = capsys.readouterr()
    assert (told.out, "this is a thread of the kernel, got 4711" in told.err) == ("", True)
