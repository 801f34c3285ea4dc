"""How soon is a new worker ready, and how much of its memory is its own, where a model is large?

The app has a model of 400 MB, nine tenths of it plain bytes and one tenth a vocabulary of Python's
objects. Two clients send a few hundred requests a second, so that workers are replaced all the
time. Both figures are medians over all workers: the time from the start of the process, which the
kernel tells to 10 ms, to the end of the app's start-up; and the memory that it shares with no other
process when it has just become ready.
"""

from __future__ import annotations

import statistics

import psutil

from bench.harness import Bench
from bench.recycle import runs, servers
from bench.recycle.lives import Life
from bench.recycle.load import Load
from bench.suites.recycle import FAILED, RECYCLES

GROUP = "recycle"

BOOT, OWN = "boot, s", "own memory of a new worker, MiB"
KINDS = (
    servers.OURS_FORKED,
    servers.OURS_SPAWNED,
    servers.UVICORN_WORKER_PRELOADED,
    servers.UVICORN,
)
MODEL_MB = 400
# 5 MiB and 2 % of the model.
OWN_AT_MOST_MIB = 5.0 + 0.02 * MODEL_MB * 1_000_000 / 2**20
CPU_MS = 1.0
MAX_REQUESTS = 100


def suite(b: Bench) -> None:
    seconds = 1.0 if b.effort.quick else 8.0
    cpu_turns = servers.turns_of(CPU_MS)
    setting = servers.Setting(cpu_turns=cpu_turns, max_requests=MAX_REQUESTS, model_mb=MODEL_MB)
    kinds = KINDS[::2] if b.effort.quick else KINDS
    for kind in kinds:
        if not servers.is_installed(kind):
            b.absent(kind.name, f"not installed: {kind.package}", kind.package)
            continue
        b.progress(kind.name)
        _measure(b, kind, setting, seconds)
    b.budget(servers.OURS_FORKED.name, metric=BOOT, at_most=0.1)
    b.budget(servers.OURS_FORKED.name, metric=OWN, at_most=round(OWN_AT_MOST_MIB, 1))


def _measure(b: Bench, kind: servers.Kind, setting: servers.Setting, seconds: float) -> None:
    own_bytes: list[int] = []

    def weigh(life: Life) -> None:
        own_bytes.append(psutil.Process(life.pid).memory_full_info().uss)

    with servers.running(kind, setting, on_ready=weigh) as running:
        load = Load(port=running.port, clients=2, think=0.005, seconds=seconds)
        run = runs.measured(running, load)
        boots = [life.boot for life in running.lives.all]
    b.record(kind.name, RECYCLES, run.recycles, package=kind.package)
    b.record(kind.name, BOOT, statistics.median(boots))
    b.record(kind.name, OWN, statistics.median(own_bytes) / 2**20)
    b.record(kind.name, FAILED, run.result.failed)
