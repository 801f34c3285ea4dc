"""The monitor in a process of its own: under a held GIL, in signal handlers, at exit."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from memguard_native import _core

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not _core.HAS_NATIVE_PROBE, reason="there is no native probe here"),
]

PRELUDE = """
import ctypes, os, signal, sys, threading, time
from memguard_native import _core
from memguard_native.memory.monitor import MemoryMonitor, start_memory_monitoring

def until(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.002)
"""


def run(body: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return done


# --- without the GIL -----------------------------------------------------------------------------


def test_native_thread_samples_on_time_while_a_c_call_holds_the_gil():
    run("""
        sampler = _core.Sampler(interval=0.02, capacity=512)
        sampler.start()
        begin = time.monotonic_ns()
        ctypes.PyDLL(None).usleep(1_000_000)   # PyDLL: the GIL is held during the call
        end = time.monotonic_ns()
        samples, _ = sampler.samples_after(0)
        sampler.stop()
        times = [sample[0] for sample in samples if begin <= sample[0] <= end]
        grid = [round((t - samples[0][0]) / 20e6) for t in times]
        late = [t - samples[0][0] - point * 20_000_000 for t, point in zip(times, grid)]
        due = (end - begin) // 20_000_000
        assert len(times) >= 0.8 * due, (len(times), due)
        assert sorted(map(abs, late))[len(late) // 2] < 5_000_000, late
    """)


def test_python_threads_do_not_run_meanwhile():
    """The counterpart: a monitor that samples in Python stands still under a held GIL."""
    run("""
        from memguard_native.memory.probe import NativeProbe
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            sys.exit(0)
        seen = []
        monitor = MemoryMonitor(0.02, probe=NativeProbe(), on_sample=seen.append)
        monitor.start()
        until(lambda: seen)
        begin = time.monotonic_ns()
        ctypes.PyDLL(None).usleep(500_000)
        end = time.monotonic_ns()
        monitor.stop()
        assert sum(begin < s.monotonic_ns < end for s in seen) <= 1
    """)


def test_samples_taken_under_a_held_gil_are_judged_afterwards():
    run("""
        seen = []
        monitor = MemoryMonitor(0.02, on_sample=seen.append)
        monitor.start()
        until(lambda: seen)
        begin = time.monotonic_ns()
        ctypes.PyDLL(None).usleep(500_000)
        end = time.monotonic_ns()
        until(lambda: seen[-1].monotonic_ns > end)
        monitor.stop()
        assert sum(begin <= s.monotonic_ns <= end for s in seen) >= 18
        assert [s.monotonic_ns for s in seen] == sorted(s.monotonic_ns for s in seen)
    """)


def test_native_thread_reads_the_two_files_and_opens_no_other():
    """Never smaps_rollup: it walks every page under a lock that the whole process needs."""
    run("""
        monitor = MemoryMonitor(0.001)
        monitor.start()
        until(lambda: monitor.snapshot().sample_count > 20)
        links = set()
        for _ in range(300):
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links.add(os.readlink(f"/proc/self/fd/{fd}").split("/")[-1])
                except OSError:
                    pass
        monitor.stop()
        assert {"statm", "status"} <= links and not any("smaps" in link for link in links), links
    """)


def test_descriptors_closed_under_our_feet_are_opened_again():
    run("""
        monitor = MemoryMonitor(0.005)
        monitor.start()
        for _ in range(5):
            count = monitor.snapshot().sample_count
            until(lambda: monitor.snapshot().sample_count > count + 3)
            os.closerange(3, 256)   # as programs do that become daemons
        count = monitor.snapshot().sample_count
        until(lambda: monitor.snapshot().sample_count > count + 3)
        snapshot = monitor.snapshot()
        monitor.stop()
        assert all(s.rss_bytes and s.anon_bytes for s in snapshot.samples)
        assert snapshot.probe_failures == 0
    """)


# --- signals -------------------------------------------------------------------------------------


def test_stop_works_in_a_signal_handler_whatever_was_interrupted():
    run("""
        monitor = MemoryMonitor(0.001)
        handled = []
        def handle(*_):
            monitor.stop()
            handled.append(time.monotonic())
        signal.signal(signal.SIGALRM, handle)
        for round in range(150):
            begin, before = time.monotonic(), len(handled)
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00003 * (round % 60))
            while len(handled) == before:
                monitor.start()
                monitor.snapshot()
                monitor.state
                monitor.stop()
            assert time.monotonic() - begin < 3, round
        monitor.stop()
        until(lambda: threading.active_count() == 1)
    """)


def test_stop_works_in_a_signal_handler_while_the_logger_is_in_use():
    run("""
        import io, logging
        logging.basicConfig(stream=io.StringIO(), level=logging.INFO)
        handled = []
        def handle(*_):
            begin = time.monotonic()
            stop()
            handled.append(time.monotonic() - begin)
        signal.signal(signal.SIGALRM, handle)
        for round in range(30):
            stop = start_memory_monitoring(interval=0.001)
            before = len(handled)
            signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0001 * round)
            while len(handled) == before:
                logging.info("the main thread logs too")
        # Bounded even when the handler interrupted the very lock that the monitor waits for.
        assert max(handled) < 6, handled
    """)


def test_signals_interrupt_the_sleep_of_the_main_thread():
    run("""
        monitor = MemoryMonitor(0.001)
        monitor.start()
        class Interrupted(Exception):
            pass
        def handle(*_):
            raise Interrupted
        signal.signal(signal.SIGALRM, handle)
        for _ in range(20):
            begin = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            try:
                time.sleep(10)
            except Interrupted:
                assert time.monotonic() - begin < 5
            else:
                raise AssertionError("the signal went to another thread")
        monitor.stop()
    """)


def test_sigterm_handler_that_stops_and_exits_ends_the_process():
    run(
        """
        stop = start_memory_monitoring(interval=0.001)
        def handle(*_):
            stop()
            sys.exit(7)
        signal.signal(signal.SIGTERM, handle)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        """,
        expected=7,
    )


# --- exit ----------------------------------------------------------------------------------------


def test_process_exits_cleanly_with_a_running_monitor():
    for _ in range(5):
        done = run("start_memory_monitoring(interval=0.001, on_sample=lambda s: None)")
        assert done.stderr == ""


def test_monitor_is_stopped_before_the_interpreter_is_taken_down():
    """What was registered with atexit first runs last."""
    script = """
import atexit, os
atexit.register(lambda: os._exit(9 if monitor.running else 0))
from memguard_native.memory.monitor import MemoryMonitor
monitor = MemoryMonitor()
monitor.start()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_process_exits_with_its_own_status_when_a_callback_hangs():
    """After the bound the daemon thread is left behind."""
    done = run(
        """
        from memguard_native.memory import sampler
        sampler._STOP_TIMEOUT = 0.2
        inside = threading.Event()
        def hang(_):
            inside.set()
            time.sleep(1000)
        start_memory_monitoring(on_sample=hang)
        inside.wait(10)
        sys.exit(3)
        """,
        expected=3,
    )
    assert "Fatal" not in done.stderr


def test_waiting_for_a_native_sample_at_exit_does_not_crash():
    """A daemon thread of the user's own that waits in the core when the interpreter ends."""
    done = run("""
        sampler = _core.Sampler(interval=0.005, capacity=8)
        sampler.start()
        def follow():
            seen = 0
            while True:
                sampler.wait_for_sample(seen, 1.0)
                seen = sampler.samples_after(seen)[1]
        for _ in range(3):
            threading.Thread(target=follow, daemon=True).start()
        until(lambda: sampler.samples_after(0)[1] > 3)
    """)
    assert done.stderr == ""


def test_monitor_starts_no_thread_at_import_or_construction():
    run("""
        import memguard_native.memory.monitor
        MemoryMonitor()
        assert threading.active_count() == 1
        assert len(os.listdir("/proc/self/task")) == 1
    """)


def test_importing_the_monitor_loads_neither_numpy_nor_psutil():
    run("assert not {'numpy', 'psutil', 'asyncio'} & set(sys.modules)")


def test_keyboard_interrupt_gets_through_a_running_monitor():
    script = PRELUDE + textwrap.dedent("""
        start_memory_monitoring(interval=0.001)
        print("ready", flush=True)
        time.sleep(30)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT
