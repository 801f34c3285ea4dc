"""How many requests fail, and for how long are workers missing, while a server replaces them?

Each server has the same app, two workers and the same load: eight clients with kept connections
send POSTs without a pause, and never send one again. Some servers replace a worker after a number
of requests, and some when they are told to by SIGHUP, again as soon as they have done so. A failure
is a request that was begun and came to no right answer: reset, closed without an answer, refused,
15 s without one, a status other than 200. That the server has closed a connection between two
requests is seen before the next one: the client connects anew, which is an extra connect.

A worker is there from the end of the app's start-up in it to the moment when the app is asked to
shut down or the process ends, by the app's own notes and the kernel's word, for all servers alike.
Below capacity are the seconds with fewer than two such workers, while requests were sent; the
longest silence is the longest time without any answer, as the clients see it.
"""

from __future__ import annotations

from bench.harness import Bench
from bench.recycle import runs, servers
from bench.recycle.load import Load
from bench.recycle.results import Failure

GROUP = "recycle"

RECYCLES, FAILED, PER_RECYCLE = "recycles", "failed requests", "failed requests per recycle"
EXTRA, BELOW, NONE = "extra connects", "s below full capacity", "s without a worker"
SILENCE, RATE = "longest silence, s", "requests/s"
LATENCIES = {"p50 ms": 0.5, "p99 ms": 0.99, "p99.9 ms": 0.999, "max ms": 1.0}
LIMIT_MARK, SIGNAL_MARK = ", by limit", ", by SIGHUP"
# What is drawn over time: all that have a limit, and the one that has none.
DRAWN_BY_SIGNAL = servers.GRANIAN
CPU_MS = 3.0


def suite(b: Bench) -> None:
    seconds = 1.2 if b.effort.quick else 18.0
    startup, limit = (0.1, 100) if b.effort.quick else (0.5, 300)
    cpu_turns = servers.turns_of(CPU_MS)
    # The quickest of the others takes eight seconds for it.
    by_signal = (servers.OURS,) if b.effort.quick else servers.WITH_SIGNAL
    rows = [(kind, False) for kind in servers.WITH_LIMIT] + [(kind, True) for kind in by_signal]
    for kind, by_hand in rows:
        name = kind.name + (SIGNAL_MARK if by_hand else LIMIT_MARK)
        if not servers.is_installed(kind):
            b.absent(name, f"not installed: {kind.package}", kind.package)
            continue
        b.progress(name)
        setting = servers.Setting(
            startup=startup,
            cpu_turns=cpu_turns,
            max_requests=servers.NO_LIMIT if by_hand else limit,
        )
        with servers.running(kind, setting) as running:
            run = runs.measured(running, Load(port=running.port, seconds=seconds), renews=by_hand)
        _record(b, name, kind.package, run)
        if not by_hand or kind is DRAWN_BY_SIGNAL:
            b.timeline(name, run.timeline())
    for metric in (PER_RECYCLE, BELOW):
        b.count(metric)
    for mark in (LIMIT_MARK, SIGNAL_MARK):
        for metric in (PER_RECYCLE, EXTRA, BELOW):
            b.budget(servers.OURS.name + mark, metric=metric, at_most=0.0)


def _record(b: Bench, name: str, package: str, run: runs.Run) -> None:
    result = run.result
    b.record(name, RECYCLES, run.recycles, package=package)
    b.record(name, FAILED, result.failed)
    if run.recycles:
        b.record(name, PER_RECYCLE, result.failed / run.recycles)
    b.record(name, EXTRA, result.extra_connects)
    b.record(name, BELOW, run.shortage.below)
    b.record(name, NONE, run.shortage.none)
    b.record(name, SILENCE, result.longest_silence)
    b.record(name, RATE, result.rate)
    for metric, share in LATENCIES.items():
        b.record(name, metric, result.latency(share) * 1000)
    for kind in Failure:
        if result.failed_by_kind[kind]:
            b.record(name, f"failed: {kind}", result.failed_by_kind[kind])
