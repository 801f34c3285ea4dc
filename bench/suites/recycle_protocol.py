"""What does a worker that can be replaced cost a request, beside plain uvicorn?

One worker each, which answers at once, loaded in turns by eight clients with kept connections.
Ours has no limit and replaces nobody: what differs is the protocol that keeps account of
connections, and the page of memory in which the worker tells of itself. The throughput is compared
round by round; the second plain uvicorn shows by how much two equal servers differ. The processor
time of a request is that of all processes of a server, as the kernel counts it.
"""

from __future__ import annotations

import contextlib
import statistics

import psutil

from bench.harness import Bench
from bench.recycle import runs, servers
from bench.recycle.load import Load
from bench.suites.recycle import RATE

GROUP = "recycle"

PLAIN, AGAIN, OURS = "uvicorn", "uvicorn, again", "memguard serve"
COST = "us of processor time per request"
RATE_RATIO, COST_RATIO = "throughput, of uvicorn", "processor time, of uvicorn"
KINDS = {PLAIN: servers.UVICORN, AGAIN: servers.UVICORN, OURS: servers.OURS}


def suite(b: Bench) -> None:
    rounds, seconds = (5, 0.2) if b.effort.quick else (25, 1.0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(servers.running(kind, servers.Setting(workers=1)))
            for name, kind in KINDS.items()
        }
        for running in started.values():
            _loaded(running, 0.2)  # warms the code
        for done in range(rounds):
            b.progress(f"round {done + 1} of {rounds}")
            for name, running in started.items():
                found[name].append(_loaded(running, seconds))
    for name, values in found.items():
        b.record(name, RATE, statistics.median(v[0] for v in values), package=KINDS[name].package)
        b.record(name, COST, statistics.median(v[1] for v in values) * 1e6)
        for metric, i in ((RATE_RATIO, 0), (COST_RATIO, 1)):
            pairs = zip(values, found[PLAIN], strict=True)
            b.record(name, metric, statistics.median(mine[i] / other[i] for mine, other in pairs))
    b.count(COST)
    b.budget(OURS, metric=RATE_RATIO, at_least=0.98)


def _loaded(running: servers.Running, seconds: float) -> tuple[float, float]:
    """Requests per second, and processor seconds that one took the server."""
    before = _processor_seconds(running)
    result = runs.measured(running, Load(port=running.port, seconds=seconds)).result
    if result.failed:
        raise RuntimeError(f"requests failed where nothing is replaced: {result.failed_by_kind}")
    return result.rate, (_processor_seconds(running) - before) / result.requests


def _processor_seconds(running: servers.Running) -> float:
    process = psutil.Process(running.process.process.pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)
