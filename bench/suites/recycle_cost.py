"""What do requests feel of workers that are replaced, beside the same server that replaces none?

Two servers with the same app and two workers each, loaded in turns by eight clients with kept
connections and no pause. One replaces a worker every second or so, after 300 requests of 3 ms; the
other has no limit. Latencies are of all rounds together; the throughput is compared round by round.
"""

from __future__ import annotations

import contextlib
import math
import statistics

from bench.harness import Bench
from bench.recycle import runs, servers
from bench.recycle.load import Load
from bench.suites.recycle import BELOW, CPU_MS, EXTRA, FAILED, RATE, RECYCLES

GROUP = "recycle"

WITH, WITHOUT = "memguard serve, replacing workers", "memguard serve, replacing none"
P999, MAX = "p99.9 ms", "max ms"
RATE_RATIO = "throughput, of replacing none"


def suite(b: Bench) -> None:
    rounds, seconds = (2, 0.8) if b.effort.quick else (10, 5.0)
    cpu_turns = servers.turns_of(CPU_MS)
    limits = {WITH: 300, WITHOUT: servers.NO_LIMIT}
    found: dict[str, list[runs.Run]] = {name: [] for name in limits}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(
                servers.running(
                    servers.OURS,
                    servers.Setting(startup=0.2, cpu_turns=cpu_turns, max_requests=limit),
                )
            )
            for name, limit in limits.items()
        }
        for done in range(rounds):
            for name, running in started.items():
                b.progress(f"{name}, round {done + 1} of {rounds}")
                load = Load(port=running.port, seconds=seconds)
                found[name].append(runs.measured(running, load))
                runs.settle(running)
    for name, all_runs in found.items():
        _record(b, name, all_runs)
    pairs = zip(found[WITH], found[WITHOUT], strict=True)
    ratio = statistics.median(one.result.rate / other.result.rate for one, other in pairs)
    b.record(WITH, RATE_RATIO, ratio)
    b.count(P999)
    b.budget(WITH, ratio_to=WITHOUT, metric=P999, at_most=2.0)
    b.budget(WITH, metric=MAX, at_most=150.0)
    b.budget(WITH, metric=RATE_RATIO, at_least=0.95)
    for metric in (FAILED, EXTRA, BELOW):
        b.budget(WITH, metric=metric, at_most=0.0)


def _record(b: Bench, name: str, all_runs: list[runs.Run]) -> None:
    latencies = sorted(answer.latency for run in all_runs for answer in run.result.answers)
    b.record(name, RECYCLES, sum(run.recycles for run in all_runs), package="memguard-native")
    b.record(name, FAILED, sum(run.result.failed for run in all_runs))
    b.record(name, EXTRA, sum(run.result.extra_connects for run in all_runs))
    b.record(name, BELOW, sum(run.shortage.below for run in all_runs))
    b.record(name, RATE, statistics.median(run.result.rate for run in all_runs))
    b.record(name, P999, latencies[math.ceil(0.999 * len(latencies)) - 1] * 1000)
    b.record(name, MAX, latencies[-1] * 1000)
