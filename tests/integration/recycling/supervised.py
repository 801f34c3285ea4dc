"""A service under the real supervisor, for tests: started, asked, looked at, and ended."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memguard_native.recycling.control import ask, find_supervisors

HERE = Path(__file__).parent
START_SECONDS = 60.0
APP = "application:app"


class Service:
    """One service; `log` is the file with what all of its processes write."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, log: Path) -> None:
        self.process = process
        self.directory = directory
        self.log = log
        self.url = ""

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def told(self) -> str:
        """What was logged so far."""
        return self.log.read_text()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Over the control socket."""
        paths = [path for path in find_supervisors("test") if f".{self.process.pid}." in path.name]
        return ask(paths[0], request)

    def workers(self, state: str | None = None) -> list[dict[str, Any]]:
        found = self.ask({"command": "workers"})["workers"]
        return [one for one in found if state is None or one["state"] == state]

    def wanted(self) -> int:
        """How many workers are to serve."""
        return self.ask({"command": "workers"})["supervisor"]["wanted"]

    def recycles(self) -> list[dict[str, Any]]:
        return self.ask({"command": "workers"})["recycles"]

    def totals(self) -> dict[str, Any]:
        return self.ask({"command": "workers"})["totals"]

    def recycle(self, number: int | None = None) -> dict[str, Any]:
        return self.ask({"command": "recycle", "number": number})

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def request(self, path: str, body: bytes = b"", method: str = "POST") -> dict[str, Any]:
        """One request on a connection of its own; raises if it is not answered by 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            told = response.read()
            assert response.status == 200, (response.status, told)
            return json.loads(told)
        finally:
            connection.close()

    def until(self, holds: Callable[[], object], seconds: float = 20.0) -> Any:
        """What `holds()` returns once that is true; a failure with the log after `seconds`."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > end:
                raise AssertionError(f"it never came to that; the log:\n{self.told()}")
            time.sleep(0.01)
        return found

    def end(self, seconds: float = 30.0) -> int:
        """Told to end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def service(
    directory: Path,
    *,
    app: str = APP,
    environment: dict[str, str] | None = None,
    ready: bool = True,
    path: str | Path = HERE,
    descriptors: int | None = None,
    handed: socket.socket | None = None,
    has_stderr: bool = True,
    **arguments: Any,
) -> Iterator[Service]:
    """`recycling.run(app, **arguments)` in a process; with `ready` once all workers are.

    `descriptors`: each of its processes may have so many at most. `handed`: the listener that
    systemd hands over. Without `has_stderr` it begins with that closed.
    """
    log = directory / "log"
    # A test does not wait for what spares a real service: see `RecyclePolicy`.
    policy = {"min_lifetime": 0.0, "min_interval": 0.0, **arguments.pop("policy", {})}
    settings = {"access_log": False, "namespace": "test", "policy": policy, **arguments}
    os.environ["MEMGUARD_DIR"] = str(directory)
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [
                *([] if descriptors is None else _in_a_shell(f"ulimit -n {descriptors}")),
                *([] if has_stderr else _in_a_shell("exec 2>&-")),
                *([] if handed is None else _handing_over(handed)),
                *(sys.executable, str(HERE / "launcher.py")),
                json.dumps({"app": app, **settings}),
            ],
            env={**os.environ, "PYTHONPATH": str(path), **(environment or {})},
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            pass_fds=[] if handed is None else [handed.fileno()],
        )
    one = Service(process, directory, log)
    try:
        if ready:
            watchdog = threading.Timer(START_SECONDS, process.kill)
            watchdog.start()
            assert process.stdout is not None
            one.url = process.stdout.readline().strip()
            watchdog.cancel()
            assert one.url, f"the service did not start:\n{one.told()}"
        yield one
    finally:
        _end(process)


def _in_a_shell(first: str) -> list[str]:
    return ["sh", "-c", f'{first} && exec "$@"', "sh"]


def _handing_over(listener: socket.socket) -> list[str]:
    program = (
        f"import os, sys; os.dup2({listener.fileno()}, 3); "
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert process.stdout is not None
    process.stdout.close()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """The processes that it has started and that are there, zombies too."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(name))
    return found
