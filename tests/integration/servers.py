"""Real servers for the tests: `memguard embed` as a process, or our application in a thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import uvicorn
from starlette.applications import Starlette

from memguard_native.recycling.listener import open_listener

START_SECONDS = 60


@dataclass
class EmbedProcess:
    """A `memguard embed` that has announced itself."""

    process: subprocess.Popen[str]
    announcement: str
    url: str

    def client(self, **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", **options)


@contextmanager
def embed_process(directory: Path, *arguments: str) -> Iterator[EmbedProcess]:
    """Run `memguard embed` on a port from the kernel; its log goes to `directory`/stderr."""
    command = [sys.executable, "-m", "memguard_native", "embed", "--port", "0", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(directory)}
    log = directory / "stderr"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            announcement = process.stdout.readline()
            watchdog.cancel()
            assert announcement, f"memguard embed did not start:\n{log.read_text()}"
            url = announcement.split(" at ")[1].split("/v1")[0]
            yield EmbedProcess(process, announcement, url)
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Serve `app` from a thread of this process; the value is its URL."""
    with open_listener(host="127.0.0.1", port=0, uds=None, fd=None) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
