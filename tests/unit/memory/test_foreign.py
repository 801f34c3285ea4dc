"""Probes of other processes: real ones, and trees of /proc made up for what is rare."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from memguard_native.errors import ProcessDeniedError, ProcessGoneError
from memguard_native.memory.foreign import ProcProbe, PsutilForeignProbe, foreign_probe

LINUX = sys.platform.startswith("linux")
PROBES = [PsutilForeignProbe, *([ProcProbe] if LINUX else [])]

STATUS = """\
Name:	my (odd) name
State:	S (sleeping)
VmRSS:	    3000 kB
RssAnon:	    1000 kB
RssFile:	    1500 kB
RssShmem:	     500 kB
VmSwap:	      20 kB
Threads:	7
"""


def stat(state: str = "S", start: int = 5000) -> str:
    return f"42 (my (odd) name) {state} " + " ".join(["1"] * 18) + f" {start} 1 1\n"


@pytest.fixture
def tree(tmp_path):
    """A /proc with the process 42."""
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "status").write_text(STATUS)
    (tmp_path / "42" / "stat").write_text(stat())
    (tmp_path / "42" / "comm").write_text("my (odd) name\n")
    (tmp_path / "uptime").write_text("1000.5 1.0\n")
    return tmp_path


@pytest.fixture
def child():
    # Its memory still moves while the interpreter starts.
    code = "print('ready', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("kind", PROBES)
def test_a_living_process_is_measured(child, kind):
    probe = kind(child.pid)
    sample = probe.sample()
    expected = psutil.Process(child.pid).memory_info().rss
    assert sample.rss_bytes == pytest.approx(expected, rel=0.3)
    assert sample.threads == 1
    assert 0 <= probe.age() < 60
    assert "python" in probe.name.lower()


@pytest.mark.parametrize("kind", PROBES)
def test_one_that_ends_is_gone(child, kind):
    probe = kind(child.pid)
    probe.sample()
    child.kill()
    probe.wait(30)  # returns when it ends, where the system tells; not yet reaped: a zombie
    with pytest.raises(ProcessGoneError) as caught:
        probe.sample()
    assert caught.value.pid == child.pid
    child.wait()
    with pytest.raises(ProcessGoneError):
        probe.sample()


@pytest.mark.parametrize("kind", PROBES)
def test_waiting_ends_with_the_time(child, kind):
    begin = time.monotonic()
    kind(child.pid).wait(0.05)
    assert 0.04 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("kind", PROBES)
def test_a_process_that_is_not_there_is_gone(child, kind):
    child.kill()
    child.wait()
    with pytest.raises(ProcessGoneError, match=f"there is no process {child.pid}"):
        kind(child.pid)


@pytest.mark.skipif(not LINUX, reason="pidfd is of Linux")
def test_waiting_ends_with_the_process(child):
    probe = ProcProbe(child.pid)
    child.kill()
    begin = time.monotonic()
    probe.wait(60)
    assert time.monotonic() - begin < 30


def test_all_figures_of_proc_are_told(tree):
    probe = ProcProbe(42, proc=tree, cgroups=tree / "none")
    sample = probe.sample()
    assert probe.name == "my (odd) name"
    assert (sample.rss_bytes, sample.anon_bytes) == (3000 * 1024, 1000 * 1024)
    assert (sample.file_bytes, sample.shmem_bytes) == (1500 * 1024, 500 * 1024)
    assert (sample.swap_bytes, sample.threads) == (20 * 1024, 7)
    assert sample.private_bytes == sample.live_bytes == 1520 * 1024
    assert probe.age() == 1000.5 - 5000 / os.sysconf("SC_CLK_TCK")


def test_a_new_process_with_the_same_id_is_not_taken_for_it(tree):
    probe = ProcProbe(42, proc=tree, cgroups=tree / "none")
    (tree / "42" / "stat").write_text(stat(start=9000))
    with pytest.raises(ProcessGoneError):
        probe.sample()


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_zombie_has_ended(tree, state):
    probe = ProcProbe(42, proc=tree, cgroups=tree / "none")
    (tree / "42" / "stat").write_text(stat(state=state))
    with pytest.raises(ProcessGoneError):
        probe.sample()


def test_a_thread_of_the_kernel_has_no_memory(tree):
    (tree / "42" / "status").write_text("Name:	kworker\nThreads:	1\n")
    sample = ProcProbe(42, proc=tree, cgroups=tree / "none").sample()
    assert (sample.rss_bytes, sample.private_bytes, sample.threads) == (None, None, 1)


def test_without_permission_the_error_says_what_to_do(tree, monkeypatch):
    probe = ProcProbe(42, proc=tree, cgroups=tree / "none")

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(ProcessDeniedError) as caught:
        probe.sample()
    assert str(caught.value) == (
        "process 42 may not be looked at: Permission denied; run as its user or root"
    )


def test_psutil_without_permission_says_the_same(child, monkeypatch):
    probe = PsutilForeignProbe(child.pid)

    def refuse(_process):
        raise psutil.AccessDenied(child.pid)

    monkeypatch.setattr(psutil.Process, "num_threads", refuse)
    with pytest.raises(ProcessDeniedError):
        probe.sample()


def test_the_best_probe_is_chosen(child, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert isinstance(foreign_probe(child.pid), PsutilForeignProbe)
