"""The watchdog in real processes: under a held GIL, alone, after a fork, at exit, many times."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("recycling is for Linux so far", allow_module_level=True)

pytestmark = pytest.mark.stress

# A worker whose supervisor is the process at the other end of its standard input.
PRELUDE = """
import ctypes, os, signal, socket, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # forking with threads is what is tested
warnings.simplefilter("ignore", ResourceWarning)      # the sockets end with the process
from memguard_native import _core

here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
there.settimeout(20)
supervisor_pidfd = os.pidfd_open(os.getppid())

def new_watchdog(**changes):
    setup = {
        "control_fd": here.fileno(),
        "message": b"over",
        "supervisor_pidfd": supervisor_pidfd,
        "grace": 3600.0,
    }
    return _core.Watchdog(**setup | changes)

def name_of(task):
    try:
        return open(f"/proc/self/task/{task}/comm").read().strip()
    except OSError:   # it has ended since it was listed
        return None

def threads():
    return [name_of(task) for task in os.listdir("/proc/self/task")].count("memguard-watch")

def until_no_thread():
    # The kernel lists one for a moment after it was joined.
    deadline = time.monotonic() + 20
    while threads():
        assert time.monotonic() < deadline
"""


def program(body: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(body)]


def run(body: str) -> None:
    done = subprocess.run(program(body), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def end_of(pid: int) -> None:
    """Waits until the process has ended; one that nobody waits for is a zombie."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    return
        except (FileNotFoundError, ProcessLookupError):
            return
        assert time.monotonic() < deadline, f"process {pid} lives"
        time.sleep(0.01)


# --- the ceiling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hold",
    ["sum(range(80_000_000))", "ctypes.PyDLL(None).usleep(1_500_000)"],
    ids=["a loop in C", "a call into C that keeps the GIL"],
)
def test_memory_over_the_ceiling_is_told_within_300_ms_while_the_gil_is_held(hold):
    """The supervisor, in another process, gets the message long before the GIL is free again."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    body = f"""
        here = socket.socket(fileno={here.fileno()})
        watchdog = new_watchdog(message=b"over")
        watchdog.watch_memory(64 << 20, _core.private_bytes())
        watchdog.start()
        kept = bytearray(b"x") * (96 << 20)
        here.send(b"begin")
        {hold}
        here.send(b"end")
        watchdog.stop()
    """
    with (
        here,
        there,
        subprocess.Popen(program(body), pass_fds=[here.fileno()], stderr=subprocess.PIPE) as worker,
    ):
        there.settimeout(40)
        told = {}
        while len(told) < 3:
            message = there.recv(100)
            assert message not in told, "it is told once"
            told[message] = time.monotonic()
        _, errors = worker.communicate(timeout=40)
    assert (worker.returncode, errors) == (0, b"")
    assert told[b"over"] - told[b"begin"] < 0.3
    assert told[b"end"] > told[b"over"]


def test_a_message_arrives_once_however_long_memory_stays_over_the_ceiling():
    run("""
        watchdog = new_watchdog(interval=0.001)
        watchdog.watch_memory(1, 0)
        watchdog.start()
        assert there.recv(100) == b"over"
        there.settimeout(0.1)
        for hard_bytes in (1, None, 2):
            watchdog.watch_memory(hard_bytes, 0)
            try:
                raise AssertionError(there.recv(100))
            except TimeoutError:
                pass
        watchdog.stop()
    """)


# --- the supervisor's end ------------------------------------------------------------------------

HANGING = """
    os.setpgid(0, 0)
    child = subprocess.Popen(["sleep", "60"])
    watchdog = new_watchdog(grace={grace})
    watchdog.start()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), child.pid, flush=True)
    ctypes.PyDLL(None).sleep(60)   # with the GIL: nothing of Python runs any more
"""
SUPERVISOR = """
import subprocess, sys
subprocess.Popen(sys.argv[1:]); input()
"""


def start_hanging(grace: float) -> tuple[subprocess.Popen[str], int, int]:
    """A supervisor, and the process numbers of its hung worker and of that one's child."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, *program(HANGING.format(grace=grace))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    worker, child = map(int, supervisor.stdout.readline().split())
    return supervisor, worker, child


def test_a_worker_that_hangs_is_killed_with_its_group_a_grace_after_its_supervisor():
    supervisor, worker, child = start_hanging(grace=0.5)
    with supervisor:
        supervisor.kill()
        killed_at = time.monotonic()
        supervisor.wait()
        end_of(worker)
        assert time.monotonic() - killed_at >= 0.45
        end_of(child)


def test_a_worker_that_hangs_is_left_alone_while_its_supervisor_lives_or_is_stopped():
    supervisor, worker, child = start_hanging(grace=0.0)
    with supervisor:
        os.kill(supervisor.pid, signal.SIGSTOP)
        time.sleep(0.5)  # five looks
        assert all(os.path.exists(f"/proc/{pid}") for pid in (worker, child))
        supervisor.kill()
        end_of(worker)
        end_of(child)


def test_a_worker_that_ends_by_itself_within_the_grace_ends_with_its_own_status():
    run("""
        other = subprocess.Popen(["sleep", "60"])
        watchdog = new_watchdog(grace=0.3, interval=0.001,
                                supervisor_pidfd=os.pidfd_open(other.pid))
        watchdog.start()
        other.kill()
        other.wait()
        time.sleep(0.05)
        watchdog.stop()
        time.sleep(0.5)
    """)


# --- forks, the end, and many times --------------------------------------------------------------


def test_a_forked_child_has_no_thread_and_starts_a_watchdog_of_its_own():
    run("""
        watchdog = new_watchdog(interval=0.001)
        watchdog.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)   # a child that hangs is a failure
                assert threads() == 0
                watchdog.watch_memory(1, 0)
                watchdog.start()
                watchdog.stop()
                assert threads() == 0
                own = new_watchdog(message=b"child")
                own.watch_memory(1, 0)
                own.start()
                assert there.recv(100) == b"child" and threads() == 1
                own.stop()
                del watchdog, own
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        watchdog.watch_memory(1, 0)
        assert there.recv(100) == b"over"
        watchdog.stop()
    """)


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "os._exit(0)", "del watchdog"])
def test_a_process_ends_with_a_running_watchdog(end):
    run(f"""
        watchdog = new_watchdog(interval=0.001)
        watchdog.watch_memory(1, 0)
        watchdog.start()
        assert there.recv(100) == b"over"
        {end}
    """)


def test_stop_in_one_thread_and_start_in_another_do_not_lock_each_other():
    run("""
        for _ in range(100):
            watchdog = new_watchdog(interval=0.001)
            calls = [watchdog.start, watchdog.stop, watchdog.stop,
                     lambda: watchdog.watch_memory(1 << 40, 0)]
            all_of_them = [threading.Thread(target=call) for call in calls]
            for thread in all_of_them:
                thread.start()
            for thread in all_of_them:
                thread.join(20)
                assert not thread.is_alive()
            watchdog.stop()
        until_no_thread()
    """)


# --- the kernel's promises -----------------------------------------------------------------------


def test_a_process_gets_the_signal_that_it_asked_for_when_its_parent_ends():
    child = program("""
        _core.set_parent_death_signal(signal.SIGTERM)
        print(os.getpid(), flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, *child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        end_of(pid)


def test_a_signal_that_there_is_not_is_refused():
    run("""
        try:
            _core.set_parent_death_signal(1000)
        except OSError as error:
            assert "Invalid argument" in str(error)
        else:
            raise AssertionError("nothing was raised")
    """)


def test_orphans_become_children_of_the_subreaper():
    run("""
        _core.become_subreaper()
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            orphan = os.fork()
            if orphan == 0:
                signal.pause()
            os.write(write, str(orphan).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        orphan = int(os.read(read, 20))
        os.kill(orphan, signal.SIGKILL)
        assert os.waitpid(orphan, 0) == (orphan, signal.SIGKILL)
    """)


def test_a_thousand_lives_of_a_watchdog_leave_no_memory_descriptor_or_thread():
    run("""
        import mmap
        mapped = mmap.mmap(-1, _core.SEGMENT_BYTES)
        _core.Segment.format(mapped, boot_id=bytes(16), time_namespace=1, pid_namespace=2,
                             random_id=3)
        segment = _core.Segment(mapped)
        segment.claim_slot(2)

        def live():
            watchdog = new_watchdog(segment=segment)
            watchdog.watch_memory(1, 0)
            watchdog.start()
            assert there.recv(100) == b"over"
            watchdog.stop()
            try:
                new_watchdog(message=b"")
            except ValueError:
                return
            raise AssertionError("it was not refused")

        def growth(times):
            before = _core.private_bytes()
            for _ in range(times):
                live()
            return _core.private_bytes() - before

        growth(200)
        descriptors = len(os.listdir("/proc/self/fd"))
        # 64 bytes left by each would be more; the smallest of three is free of other causes.
        assert any(growth(1000) < 64_000 for _ in range(3))
        assert len(os.listdir("/proc/self/fd")) == descriptors
        until_no_thread()
    """)
