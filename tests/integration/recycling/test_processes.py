"""What the processes of a service are to each other, to signals and to what they have imported."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from .supervised import children_of, is_alive, service
from .test_faults import pid_of, zygote_of

FOR_THE_SUPERVISOR = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
STARTS = pytest.mark.parametrize("start", ["zygote", "spawn"])


def ignored_by(pid):
    """As a mask of the signals that there are names for: glibc has one of its own."""
    (line,) = [
        one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in one
    ]
    return int(line.split()[1], 16) & (2**31 - 1)


def started_in(log):
    """The process of `imported.py`, once it is there."""
    found = [line for line in log.read_text().splitlines() if line.startswith("process ")]
    return int(found[0].split()[1]) if found else None


@STARTS
@pytest.mark.parametrize("ignored", [[], ["SIGINT", "SIGHUP", "SIGCHLD"]])
def test_what_a_worker_starts_ignores_no_more_than_what_any_process_starts(
    tmp_path, start, ignored
):
    with subprocess.Popen(["sleep", "600"]) as plain:
        expected = ignored_by(plain.pid)
        plain.kill()
    with service(tmp_path, start=start, ignored=ignored) as running:
        child = running.request("/start-child")["child"]
        assert ignored_by(child) == expected


@STARTS
def test_a_signal_for_the_supervisor_ends_nobody_else(tmp_path, start):
    with service(tmp_path, start=start) as running:
        worker = pid_of(running)
        others = [worker] if start == "spawn" else [worker, zygote_of(running)]
        for number in FOR_THE_SUPERVISOR:
            for pid in others:
                os.kill(pid, number)
        assert running.request("/echo")["pid"] == worker
        running.recycle(0)
        running.until(running.recycles)
        assert all(is_alive(pid) for pid in others[1:])


def test_the_terminal_reaches_neither_zygote_nor_worker(tmp_path):
    with service(tmp_path, start="zygote") as running:
        for pid in (pid_of(running), zygote_of(running)):
            assert os.getpgid(pid) == pid


@pytest.mark.parametrize("how", [{"start": "spawn"}, {"start": "zygote"}, {"as_object": True}])
def test_a_parent_that_ignores_the_ends_of_children_does_not_hide_how_workers_end(tmp_path, how):
    with service(tmp_path, ignored=["SIGCHLD", "SIGINT", "SIGHUP"], **how) as running:
        old = pid_of(running)
        for pid in children_of(running.process.pid):  # the zygote, or the worker
            assert not ignored_by(pid) & 1 << signal.SIGCHLD - 1
        os.kill(old, signal.SIGKILL)
        running.until(running.recycles)
        running.until(lambda: running.workers("ready"))
        assert "killed by signal 9" in running.told()
        assert pid_of(running) != old


def test_what_was_made_at_import_is_finalized_by_the_zygote_once_all_have_ended(tmp_path):
    made, log = tmp_path / "made", tmp_path / "ends"
    made.mkdir()
    environment = {"APP_DIRECTORY": str(made), "APP_LOG": str(log)}
    with service(tmp_path, app="imported:app", start="zygote", environment=environment) as running:
        zygote, first = zygote_of(running), pid_of(running)
        running.recycle(0)
        running.until(running.recycles)
        assert running.request("/has-directory")["is_there"]
        second = pid_of(running)
        assert running.end() == 0
    assert not list(made.iterdir())
    ends = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("end ")]
    assert ends == [str(first), str(second), str(zygote)]


def test_a_process_that_was_started_at_import_is_there_for_all_workers(tmp_path):
    log = tmp_path / "app-log"
    environment = {"APP_PROCESS": "1", "APP_LOG": str(log)}
    with service(
        tmp_path, app="imported:app", start="zygote", kill_timeout=100.0, environment=environment
    ) as running:
        started = running.until(lambda: started_in(log))
        first = pid_of(running)
        running.recycle(0)
        running.until(running.recycles)
        assert not is_alive(first)
        assert is_alive(started)
        assert running.end() == 0
        assert not is_alive(started)
        assert "Traceback" not in running.told()


def test_what_the_owner_of_an_application_object_has_made_is_there_after_the_service(tmp_path):
    with service(tmp_path, as_object=True, has_directory=True) as running:
        running.recycle(0)
        running.until(running.recycles)
        assert running.end() == 0
        assert "the directory is there: True" in running.told()


@STARTS
def test_a_thread_that_does_not_end_keeps_no_worker(tmp_path, start):
    with service(
        tmp_path, app="imported:app", start=start, drain_timeout=100.0, kill_timeout=100.0
    ) as running:
        running.request("/start-thread")
        running.recycle(0)
        running.until(running.recycles)


@pytest.mark.parametrize("is_handed", [True, False])
def test_the_file_of_a_path_stays_where_systemd_has_made_it(tmp_path, is_handed):
    path = tmp_path / "shop.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        if is_handed:
            listener.bind(str(path))
            listener.listen()
        with service(tmp_path, uds=str(path), handed=listener if is_handed else None) as running:
            assert running.url == f"unix:{path}"
            assert running.end() == 0
        assert path.exists() is is_handed


def test_a_service_that_cannot_start_leaves_no_file_at_its_path(tmp_path):
    path = tmp_path / "shop.sock"
    with service(
        tmp_path, uds=str(path), start="zygote", refused_starts=[1], ready=False
    ) as running:
        assert running.process.wait(30) == 1
        assert not path.exists()


def whose_import_does_not_end(directory, **environment):
    (directory / "hang").touch()
    return service(
        directory,
        app="imported:app",
        start="zygote",
        ready_timeout=1.0,
        environment={"APP_HANG_IF": str(directory / "hang"), **environment},
        ready=False,
    )


def test_an_application_whose_import_does_not_end_is_given_up(tmp_path):
    with whose_import_does_not_end(tmp_path) as running:
        assert running.process.wait(30) == 1
        told = running.told()
        assert "could not be loaded: it was not loaded within 1 s" in told
        assert 'imported.py", line' in told  # where it hung


def test_what_an_application_has_started_that_is_given_up_ends_with_it(tmp_path):
    log = tmp_path / "app-log"
    log.touch()
    with whose_import_does_not_end(tmp_path, APP_PROCESS="1", APP_LOG=str(log)) as running:
        started = running.until(lambda: started_in(log))
        assert running.process.wait(30) == 1
        assert not is_alive(started)


def test_workers_stay_where_a_new_import_does_not_end(tmp_path):
    environment = {"APP_HANG_IF": str(tmp_path / "hang")}
    with service(
        tmp_path, app="imported:app", start="zygote", ready_timeout=5.0, environment=environment
    ) as running:
        worker = pid_of(running)
        (tmp_path / "hang").touch()
        running.signal(signal.SIGHUP)
        running.until(lambda: "workers stay: it was not loaded within 5 s" in running.told())
        assert pid_of(running) == worker
        running.recycle(0)  # of the zygote that there was
        running.until(running.recycles)
