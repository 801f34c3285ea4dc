"""The servers that replace workers, each with the same app, number of workers and limit.

What they can choose is chosen alike: uvloop and a parser in C where they come with one, connections
kept for 30 s, no access log; all else is as they come. How a server is called and started stands
here and nowhere else. `with running(kind, setting) as started` gives it once its workers are ready.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import rivals, servers
from bench.recycle import app
from bench.recycle.lives import Life, Lives

APP = f"{app.__name__}:app"
PRELOADED_APP = f"{app.__name__}:preloaded"
KEEP_ALIVE_S = 30
# As every server here that has such a limit spreads it.
JITTER = 0.1
# More than any run sends.
NO_LIMIT = 1_000_000_000
# Nothing that is measured hangs on how a server stops.
_STOP_TIMEOUT_S = 1.0
_CALIBRATION_TURNS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all servers of a comparison have in common."""

    workers: int = 2
    max_requests: int = NO_LIMIT
    startup: float = 0.0
    cpu_turns: int = 0
    model_mb: int = 0

    @property
    def jitter_requests(self) -> int:
        return round(self.max_requests * JITTER)


@dataclass(frozen=True)
class Kind:
    """A server in one configuration: its name in tables, its distribution, its command."""

    name: str
    package: str
    command: Callable[[int, Setting], list[str]]


@dataclass(frozen=True)
class Running:
    """A server whose workers are ready."""

    process: servers.Server
    lives: Lives
    workers: int

    @property
    def port(self) -> int:
        return self.process.port

    def is_settled(self) -> bool:
        """Whether as many workers are there as were asked for, so that none is being replaced."""
        return len(self.lives.present) == self.workers


class Renewals:
    """Asks a server to replace all of its workers, again as soon as it has done so."""

    REST_S = 0.3

    def __init__(self, running: Running) -> None:
        self._running = running
        self._before: set[int] = set()

    def step(self) -> None:
        """Ask, if none of the former workers is left and the last new one has had its rest."""
        present = self._running.lives.present
        if not self._running.is_settled() or self._before & {life.pid for life in present}:
            return
        if time.monotonic() < max(life.ready_at for life in present) + self.REST_S:
            return
        self._before = {life.pid for life in present}
        self._running.process.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def running(
    kind: Kind, setting: Setting, on_ready: Callable[[Life], None] = lambda life: None
) -> Iterator[Running]:
    """Start it, wait until all of its workers are ready, stop it at exit. Raises ServerError."""
    port = servers.free_port()
    with tempfile.TemporaryDirectory(prefix="memguard-recycle-") as folder:
        path = Path(folder) / "lives"
        lives = Lives(path, on_ready)

        def is_ready() -> bool:
            lives.look()
            return len(lives.present) >= setting.workers and servers.answers(port, "/")

        environment = {
            app.LIVES: str(path),
            app.STARTUP: str(setting.startup),
            app.CPU_TURNS: str(setting.cpu_turns),
            app.MODEL_MB: str(setting.model_mb),
            # What ours shares in memory, apart from the user's services.
            "MEMGUARD_DIR": str(Path(folder) / "segments"),
        }
        command = kind.command(port, setting)
        with (
            contextlib.closing(lives),
            servers.running_until_stopped(
                command, port, is_ready, environment, _STOP_TIMEOUT_S
            ) as process,
        ):
            yield Running(process, lives, setting.workers)


def is_installed(kind: Kind) -> bool:
    return rivals.version(kind.package) is not None


def turns_of(milliseconds: float) -> int:
    """Turns of the app's loop that take so long on a processor of its own."""
    best = min(_seconds_of_turns() for _ in range(5))
    return round(milliseconds / 1000 / best * _CALIBRATION_TURNS)


def _seconds_of_turns() -> float:
    start = time.process_time()
    app.work(_CALIBRATION_TURNS)
    return time.process_time() - start


# --- the commands ---------------------------------------------------------------------------


def _ours(start: str = "auto") -> Callable[[int, Setting], list[str]]:
    def command(port: int, setting: Setting) -> list[str]:
        return [
            *(sys.executable, "-m", "memguard_native", "serve", APP),
            *("--port", str(port), "--workers", str(setting.workers), "--start", start),
            *("--preload", f"{app.__name__}:load_model"),
            *("--max-requests", str(setting.max_requests), "--jitter", str(JITTER)),
            # The others know no such patience: with it the limit would not be the same.
            *("--min-lifetime", "0", "--min-interval", "0"),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            *("--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning"),
        ]

    return command


def _uvicorn(port: int, setting: Setting) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", APP),
        *("--port", str(port), "--workers", str(setting.workers)),
        *("--limit-max-requests", str(setting.max_requests)),
        *("--limit-max-requests-jitter", str(setting.jitter_requests)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
        *("--timeout-keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning"),
    ]


def _gunicorn(worker_class: str, *options: str) -> Callable[[int, Setting], list[str]]:
    def command(port: int, setting: Setting) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--bind", f"{servers.HOST}:{port}"),
            *("--workers", str(setting.workers), "--worker-class", worker_class),
            *("--max-requests", str(setting.max_requests)),
            *("--max-requests-jitter", str(setting.jitter_requests)),
            *("--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning"),
            *(options or (APP,)),
        ]

    return command


def _granian(port: int, setting: Setting) -> list[str]:
    # It has no limit of requests: what it can be asked for is SIGHUP.
    return [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "uvloop"),
        *("--port", str(port), "--workers", str(setting.workers), "--log-level", "warning"),
        APP,
    ]


def _hypercorn(port: int, setting: Setting) -> list[str]:
    return [
        *(sys.executable, "-m", "hypercorn", "--bind", f"{servers.HOST}:{port}"),
        *("--workers", str(setting.workers), "--worker-class", "uvloop"),
        *("--max-requests", str(setting.max_requests)),
        *("--max-requests-jitter", str(setting.jitter_requests)),
        *("--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning"),
        APP,
    ]


OURS = Kind("memguard serve", "memguard-native", _ours())
OURS_FORKED = Kind("memguard serve, forked", "memguard-native", _ours("zygote"))
OURS_SPAWNED = Kind("memguard serve, spawned", "memguard-native", _ours("spawn"))
UVICORN = Kind("uvicorn", "uvicorn", _uvicorn)
UVICORN_WORKER = Kind(
    "gunicorn + uvicorn-worker", "uvicorn-worker", _gunicorn("uvicorn_worker.UvicornWorker")
)
UVICORN_WORKER_PRELOADED = Kind(
    "gunicorn --preload + uvicorn-worker",
    "uvicorn-worker",
    _gunicorn("uvicorn_worker.UvicornWorker", "--preload", f"{PRELOADED_APP}()"),
)
GUNICORN = Kind("gunicorn -k asgi", "gunicorn", _gunicorn("asgi"))
GRANIAN = Kind("granian", "granian", _granian)
HYPERCORN = Kind("hypercorn", "hypercorn", _hypercorn)

WITH_LIMIT = (UVICORN, UVICORN_WORKER, GUNICORN, HYPERCORN, OURS)
WITH_SIGNAL = (UVICORN, UVICORN_WORKER, GUNICORN, GRANIAN, OURS)
