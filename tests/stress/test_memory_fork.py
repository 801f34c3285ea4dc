"""A forked child watches itself if its parent did, whatever the parent was doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

PRELUDE = """
import dataclasses, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # forking with threads is what is tested
from memguard_native import _core
from memguard_native.memory.monitor import MemoryMonitor
from memguard_native.memory.probe import NativeProbe, PsutilProbe
from memguard_native.testing import FakeProbe, ManualClock

MB = 2**20

def in_child(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)   # a child that hangs is a failure
        try:
            check()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the child ended with {status}"

def until(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.002)

def names():
    return [open(f"/proc/self/task/{task}/comm").read().strip()
            for task in os.listdir("/proc/self/task")]

def python_threads():
    return [thread.name for thread in threading.enumerate()].count("memguard-memory")

def samples_in_child(monitor):
    assert monitor.running
    seen = monitor.snapshot().sample_count
    until(lambda: monitor.snapshot().sample_count >= seen + 3)
    sample = monitor.snapshot().samples[-1]
    assert python_threads() == 1
    monitor.stop()
    assert python_threads() == 0 and not monitor.running
    return sample
"""

KINDS = {
    "native": "monitor = MemoryMonitor(0.01, 3)",
    "probe": "monitor = MemoryMonitor(0.01, 3, probe=FakeProbe(ManualClock(1)))",
}


def run(body: str, setup: str = "") -> None:
    script = PRELUDE + textwrap.dedent(setup) + textwrap.dedent(body)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the children too: one of them hangs
            raise
    assert process.returncode == 0, errors
    assert "Exception ignored" not in errors, errors


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_a_child_goes_on_if_its_parent_was_running(kind):
    run(
        """
        monitor.start()
        until(lambda: monitor.snapshot().sample_count >= 5)
        in_child(lambda: samples_in_child(monitor))
        count = monitor.snapshot().sample_count
        until(lambda: monitor.snapshot().sample_count > count + 2)   # the parent goes on too
        monitor.stop()
        """,
        kind,
    )


def test_a_child_of_a_child_goes_on_too(kind):
    run(
        """
        monitor.start()
        def check():
            in_child(lambda: samples_in_child(monitor))
            samples_in_child(monitor)
        in_child(check)
        monitor.stop()
        """,
        kind,
    )


def test_a_child_learns_anew():
    run(
        """
        monitor.start()
        until(lambda: monitor.state == "steady")
        def check():
            until(lambda: monitor.snapshot().sample_count >= 1)
            assert monitor.snapshot().samples[0].monotonic_ns > forked_ns
            until(lambda: monitor.state == "steady")
        forked_ns = time.monotonic_ns()
        in_child(check)
        monitor.stop()
        """,
        "monitor = MemoryMonitor(0.01, 3, threshold_mb_per_hour=1e9, rule='window')",
    )


def test_nothing_runs_in_a_child_if_it_did_not_in_the_parent(kind):
    run(
        """
        def check():
            assert not monitor.running
            assert python_threads() == 0 and len(os.listdir("/proc/self/task")) == 1
        in_child(check)
        monitor.start()
        until(lambda: monitor.snapshot().sample_count >= 1)
        monitor.stop()
        in_child(check)
        """,
        kind,
    )


def test_nothing_runs_in_a_child_that_is_forked_while_the_parent_stops(kind):
    run(
        """
        pids = []
        inside = threading.Event()
        def fork_during_the_stop(_):
            inside.set()
            until(lambda: not monitor.running)
            pids.append(os.fork())
            if pids[0] == 0:
                os._exit(0 if not monitor.running and python_threads() <= 1 else 1)
        monitor._config = dataclasses.replace(monitor._config, on_sample=fork_during_the_stop)
        monitor.start()
        inside.wait(15)
        monitor.stop()
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
        """,
        kind,
    )


def test_a_monitor_that_did_not_run_can_be_started_in_the_child(kind):
    run(
        """
        monitor.start()
        monitor.stop()
        def check():
            monitor.start()
            samples_in_child(monitor)
        in_child(check)
        """,
        kind,
    )


def test_a_child_sees_its_own_memory():
    """The kept descriptors describe the parent: they must be opened anew."""
    run(
        """
        held = NativeProbe(), PsutilProbe(), _core.Probe()
        for probe in held[:2]:
            probe.sample()
        held[2].rss_bytes()
        monitor.start()
        until(lambda: monitor.snapshot().sample_count >= 1)
        before = NativeProbe().sample().rss_bytes
        def check():
            block = b"x" * (64 * MB)
            own = NativeProbe().sample().rss_bytes
            assert own > before + 50 * MB
            now_ns = time.monotonic_ns()   # samples of before may still be on their way
            until(lambda: any(s.monotonic_ns > now_ns for s in monitor.snapshot().samples))
            for rss in (held[0].sample().rss_bytes, held[1].sample().rss_bytes,
                        held[2].rss_bytes(), samples_in_child(monitor).rss_bytes):
                assert abs(rss - own) < 4 * MB, (rss, own, before)
        in_child(check)
        monitor.stop()
        """,
        "monitor = MemoryMonitor(0.01, 3)",
    )


def test_a_child_has_one_native_thread_and_no_descriptor_too_many():
    run(
        """
        def kept():
            paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            links = [os.readlink(path) for path in paths if os.path.lexists(path)]
            names = [link.split("/")[-1] for link in links]
            return sorted(name for name in names if name in ("statm", "status", "task"))
        monitor.start()
        until(lambda: monitor.snapshot().sample_count >= 2)
        assert names().count("memguard-sample") == 1
        def check():
            until(lambda: monitor.snapshot().sample_count >= 2)
            assert names().count("memguard-sample") == 1
            assert kept() == ["statm", "status", "task"], kept()
            in_child(lambda: (until(lambda: monitor.snapshot().sample_count >= 2),
                              kept() == ["statm", "status", "task"] or os._exit(3)))
        in_child(check)
        monitor.stop()
        """,
        "monitor = MemoryMonitor(0.01, 3)",
    )


def test_many_forks_while_sampling_at_full_speed_never_hang():
    """Whatever lock or descriptor the sampling threads hold at the instant of the fork."""
    run(
        """
        monitors = [MemoryMonitor(0.001, 3), MemoryMonitor(0.001, 3, probe=NativeProbe())]
        for monitor in monitors:
            monitor.start()
        for _ in range(60):
            in_child(lambda: [samples_in_child(m) if m is monitors[-1] else m.stop()
                              for m in monitors])
        for monitor in monitors:
            assert monitor.running
            monitor.stop()
        """
    )


def test_a_child_that_exits_at_once_does_not_hang(kind):
    run(
        """
        monitor.start()
        for _ in range(20):
            in_child(lambda: None)
        monitor.stop()
        """,
        kind,
    )


def test_a_child_that_exits_in_the_ordinary_way_stops_its_monitor(kind):
    run(
        """
        monitor.start()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        monitor.stop()
        """,
        kind,
    )


def test_a_fork_in_a_callback_leaves_one_run_in_the_child(kind):
    """There the forking thread is the monitor's own: it must leave the parent's run."""
    run(
        """
        pids = []
        def fork_once(_):
            if not pids:
                pids.append(0)
                pids[0] = os.fork()
                if pids[0] == 0:
                    signal.alarm(20)
                    run = monitor._thread
                    def check():
                        until(lambda: monitor.snapshot().sample_count >= 3)
                        os._exit(0 if monitor._thread is run and run.running else 1)
                    threading.Thread(target=check).start()
        monitor._config = dataclasses.replace(monitor._config, on_sample=fork_once)
        monitor.start()
        until(lambda: pids and pids[0])
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
        monitor.stop()
        """,
        kind,
    )


def test_a_child_that_gets_no_thread_logs_it_and_lives(kind):
    run(
        """
        import logging
        logging.basicConfig(stream=sys.stdout)
        monitor.start()
        def refuse(*_):
            raise RuntimeError("can't start new thread")
        def check():
            assert not monitor.running
            monitor.stop()
        threading.Thread.start = refuse
        in_child(check)
        monitor.stop()
        """,
        kind,
    )


def test_multiprocessing_workers_watch_themselves(kind):
    run(
        """
        import multiprocessing
        def work(queue):
            until(lambda: monitor.snapshot().sample_count >= 2)
            queue.put(os.getpid())
        monitor.start()
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        workers = [context.Process(target=work, args=(queue,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        assert {queue.get() for _ in workers} == {worker.pid for worker in workers}
        for worker in workers:
            worker.join(15)
            assert worker.exitcode == 0
        monitor.stop()
        """,
        kind,
    )


def test_a_child_reads_the_group_and_counts_threads_and_arenas_of_its_own():
    """Descriptors of the parent would tell of the parent's group and threads."""
    run(
        """
        probe = NativeProbe()
        before = [probe.sample() for _ in range(3)][-1]
        def check():
            ready, end = threading.Event(), threading.Event()
            def wait():
                ready.set()
                end.wait(15)
            more = [threading.Thread(target=wait) for _ in range(3)]
            for thread in more:
                thread.start()
            samples = [probe.sample() for _ in range(3)]
            assert all(s.threads == 4 for s in samples), samples
            assert (samples[-1].cgroup_usage_bytes is None) == (before.cgroup_usage_bytes is None)
            assert samples[-1].python_arena_bytes == _core.python_arena_bytes()
            fresh = NativeProbe().sample()
            assert fresh.cgroup_limit_bytes == samples[-1].cgroup_limit_bytes
            end.set()
            for thread in more:
                thread.join()
        in_child(check)
        assert probe.sample().threads == before.threads
        """
    )


def test_without_proc_samples_are_empty_in_parent_and_child():
    run(
        """
        probe = NativeProbe(root="/nowhere")
        def check():
            sample = probe.sample()
            assert sample.monotonic_ns > 0
            assert sample.rss_bytes is sample.private_bytes is sample.threads is None
            assert sample.cgroup_usage_bytes is sample.memory_pressure_us is None
        check()
        in_child(check)
        """
    )


def test_load_of_the_parent_is_in_the_child_until_it_is_set():
    run(
        """
        gauge = _core.LoadGauge()
        gauge.set(7)
        probe = NativeProbe(load=gauge)
        def check():
            assert probe.sample().load == 7.0
            gauge.set(0)
            assert probe.sample().load == 0.0
        in_child(check)
        assert probe.sample().load == 7.0
        """
    )
