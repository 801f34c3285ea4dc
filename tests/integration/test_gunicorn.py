"""Real gunicorn with our hooks: workers are replaced by memory, and their number stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import psutil
import pytest
from gunicorn.config import Config
from tests.integration.snippets import blocks_of

from memguard_native.integrations import gunicorn

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "gunicorn.md"
PATIENCE = 40.0
SYNC = ("gunicorn_app:make_wsgi()", "sync")
UVICORN = ("gunicorn_app:asgi", "uvicorn_worker.UvicornWorker")
HOOKS = """
from memguard_native.integrations.gunicorn import *
from memguard_native.integrations.gunicorn import memory_limit

memory_limit("160MiB", sample_interval=0.1{more})
"""
# Told at each change: processes can be counted too early, what the arbiter wants cannot.
TOLD = """
from memguard_native.integrations import gunicorn as _ours

def nworkers_changed(server, new_value, old_value):
    _ours.nworkers_changed(server, new_value, old_value)
    server.log.info("%d workers are wanted", server.num_workers)
"""


def wait_until(is_so, otherwise):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError(otherwise())


class Gunicorn:
    """A running gunicorn: its log, its workers and a client."""

    def __init__(self, process, directory):
        self.process = process
        self.log_file = directory / "log"
        self.gate = directory / "gate"
        self.url = ""
        self.lost = 0
        """Requests without an answer, of those that `try_get` made."""

    def log(self):
        return self.log_file.read_text()

    def wait_for(self, pattern, times=1):
        wait_until(
            lambda: len(re.findall(pattern, self.log())) >= times,
            lambda: f"no {pattern!r} {times} times in the log:\n{self.log()}",
        )

    def workers(self):
        children = psutil.Process(self.process.pid).children()
        return {one.pid for one in children if one.status() != psutil.STATUS_ZOMBIE}

    def wait_for_workers(self, count):
        wait_until(lambda: len(self.workers()) == count, lambda: f"{self.workers()}\n{self.log()}")

    def booted(self):
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log())]

    def wanted(self):
        """The numbers of workers that the arbiter has wanted, one after the other; see TOLD."""
        return [int(count) for count in re.findall(r"(\d+) workers are wanted", self.log())]

    def get(self, path="/"):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as response:
            assert response.status == 200
            return int(response.read())

    def try_get(self, path="/"):
        """As `get`, or None without an answer."""
        try:
            return self.get(path)
        except (URLError, ConnectionError):
            self.lost += 1
            return None

    def leak_until(self, pattern):
        """Requests until the log has it, each on a connection of its own; few, so that memory does
        not run away between two samples."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.log()):
            assert time.monotonic() < deadline, self.log()
            self.try_get("/leak")
            time.sleep(0.02)

    def end(self):
        """Nothing comes into the log after it."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def being_replaced(self):
        """A worker that waits for another one, which does not serve before the gate opens."""
        self.gate.touch()
        self.leak_until("is being replaced")
        return int(re.findall(r"worker \(pid:(\d+)\) is being replaced", self.log())[-1])


@contextmanager
def running(directory, configuration, app=SYNC, workers=2, starts=None):
    """gunicorn with this configuration file, once the application has started so many times."""
    (directory / "gunicorn.conf.py").write_text(configuration)
    name, worker_class = app
    log = directory / "log"
    arguments = [
        *(sys.executable, "-m", "gunicorn", name, "--worker-class", worker_class),
        *("--workers", str(workers), "--bind", "127.0.0.1:0", "--log-file", str(log)),
        *("--no-control-socket", "--pythonpath", str(HERE)),
    ]
    environment = {
        **os.environ,
        "GATE": str(directory / "gate"),
        "LOG": str(log),
        "MEMGUARD_DIR": str(directory),
    }
    with (
        (directory / "stderr").open("w") as stderr,
        subprocess.Popen(arguments, cwd=directory, env=environment, stderr=stderr) as process,
    ):
        service = Gunicorn(process, directory)
        try:
            wait_until(log.exists, (directory / "stderr").read_text)
            service.wait_for(r"Listening at: http://\S+")
            service.url = re.search(r"Listening at: (http://\S+)", service.log())[1]
            service.wait_for(r"application of \d+ started", starts or workers)
            yield service
        finally:
            service.gate.unlink(missing_ok=True)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(
    params=[pytest.param(SYNC, marks=pytest.mark.slow), UVICORN], ids=["sync", "uvicorn"]
)
def app(request):
    return request.param


def limited(**more):
    return HOOKS.format(more="".join(f", {name}={value}" for name, value in more.items()))


def test_a_worker_over_its_limit_is_replaced_and_no_request_fails(tmp_path, app):
    with running(tmp_path, limited(), app) as service:
        before = service.workers()
        stopping = threading.Event()

        def load():
            answers = []
            while not stopping.is_set():
                answers.append(service.try_get())
                time.sleep(0.01)
            return answers

        with ThreadPoolExecutor() as pool:
            clients = [pool.submit(load) for _ in range(2)]
            try:
                service.leak_until(r"worker \(pid:\d+\) ends: ")
                service.wait_for_workers(2)
                wait_until(lambda: service.try_get() not in {*before, None}, service.log)
            finally:
                stopping.set()
            answered = {pid for client in clients for pid in client.result()}
        assert answered & before
        # uvicorn's own drain closes a connection that it has accepted and whose request has not
        # come yet.
        assert service.lost <= (1 if app is UVICORN else 0)


def test_the_next_worker_has_started_before_the_old_one_ends(tmp_path, app):
    with running(tmp_path, limited(), app, workers=1) as service:
        old = service.being_replaced()
        service.wait_for("Booting worker", 2)
        assert service.get() == old  # it serves while the next one cannot
        assert service.workers() == set(service.booted())
        service.gate.unlink()
        service.wait_for(rf"worker \(pid:{old}\) ends: ")
        service.wait_for_workers(1)
        new = service.booted()[-1]
        log = service.log()
        assert log.index(f"application of {new} started") < log.index(f"(pid:{old}) ends: ")
        assert service.get() == new


def test_a_worker_killed_while_it_is_replaced_leaves_the_number_as_it_was(tmp_path):
    with running(tmp_path, limited() + TOLD) as service:
        old = service.being_replaced()
        service.wait_for("Booting worker", 3)
        assert service.wanted() == [2, 3]
        os.kill(old, signal.SIGKILL)
        service.wait_for("workers are wanted", 3)
        service.gate.unlink()
        service.wait_for(r"application of \d+ started", 3)
        os.kill(service.booted()[-1], signal.SIGKILL)
        service.wait_for(r"application of \d+ started", 4)
        service.end()
        # Nobody comes for the first that was killed, one for the second.
        assert service.wanted() == [2, 3, 2]
        assert len(service.booted()) == 4


def test_a_next_worker_that_never_serves_is_killed_and_the_old_one_goes_on(tmp_path, app):
    with running(tmp_path, limited(ready_timeout=0.5), app, workers=1) as service:
        old = service.being_replaced()
        service.wait_for("no worker came to serve within ready_timeout")
        service.wait_for("is not replaced now")
        service.wait_for_workers(1)
        assert service.workers() == {old}
        service.gate.unlink()
        assert service.get() == old
        assert len(service.booted()) == 2


def test_a_reload_while_a_worker_is_replaced_leaves_the_number_as_configured(tmp_path):
    with running(tmp_path, limited() + TOLD) as service:
        service.being_replaced()
        service.wait_for("Booting worker", 3)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("Booting worker", 5)
        service.gate.unlink()
        kept, killed = service.booted()[-2:]
        wait_until(lambda: service.workers() == {kept, killed}, service.log)
        os.kill(killed, signal.SIGKILL)
        service.wait_for("Booting worker", 6)
        service.end()
        assert service.wanted() == [2, 3, 2]
        assert len(service.booted()) == 6
        assert "Traceback" not in service.log()


def test_a_limit_that_a_fresh_worker_is_over_replaces_nobody(tmp_path):
    with running(tmp_path, HOOKS.replace("160MiB", "1MiB").format(more="")) as service:
        service.wait_for("is not limited: max_memory is 1.0 MiB", 2)
        service.get()
        assert len(service.booted()) == 2


def test_preloaded_memory_is_not_a_workers_own(tmp_path):
    preload = "\npreload_app = True\nballast = bytes(range(256)) * 2**20\n"
    with running(tmp_path, limited() + preload, starts=1) as service:
        service.leak_until("is being replaced")
        text = re.search(r"is being replaced: (\d+)\.\d MiB of its own", service.log())[1]
        assert 160 <= int(text) < 256


def refused(tmp_path, configuration, *command, **environment):
    (tmp_path / "gunicorn.conf.py").write_text(configuration)
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "gunicorn_app:make_wsgi()", *command],
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "GATE": "",
            "LOG": os.devnull,
            "PYTHONPATH": str(HERE),
            "MEMGUARD_DIR": str(tmp_path),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    return done.stderr


def test_a_wrong_limit_ends_gunicorn_at_its_start(tmp_path):
    told = refused(tmp_path, HOOKS.replace("160MiB", "lots").format(more=""))
    assert "max_memory must be" in told
    assert "got 'lots'" in told


def test_the_module_can_be_the_configuration(tmp_path):
    module = "python:memguard_native.integrations.gunicorn"
    told = refused(tmp_path, "", "-c", module, MEMGUARD_MAX_MEMORY="lots")
    assert "MEMGUARD_MAX_MEMORY must be" in told
    assert set(Config().settings) & set(vars(gunicorn)) == set(gunicorn.__all__)


def test_a_hook_that_hides_ours_ends_gunicorn_at_its_start(tmp_path):
    hidden = (
        "\nbind = '127.0.0.1:0'\ncontrol_socket_disable = True\n"
        "def pre_fork(server, worker): pass\n"
    )
    told = refused(tmp_path, limited() + hidden)
    assert "pre_fork must call memguard_native.integrations.gunicorn.pre_fork as well" in told


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_the_document_run(tmp_path, number):
    configuration = blocks_of(DOCUMENT)[number][0]
    with running(tmp_path, configuration) as service:
        service.get()
        if number == 1:
            service.wait_for(r"worker \d+ is there", 2)
        assert "Traceback" not in service.log()
