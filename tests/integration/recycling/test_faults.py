"""What goes wrong with processes, and what it costs: nothing but what ran in the one that died."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from .supervised import children_of, is_alive, service

pytestmark = pytest.mark.stress


def pid_of(running):
    (worker,) = running.workers("ready")
    return worker["pid"]


def _is_another(running, pid):
    """Whether a worker is ready, and it is not that one."""
    return [one for one in running.workers("ready") if one["pid"] != pid]


def zygote_of(running):
    workers = {one["pid"] for one in running.workers()}
    (zygote,) = [pid for pid in children_of(running.process.pid) if pid not in workers]
    return zygote


def test_a_killed_worker_has_a_successor_at_once(tmp_path):
    with service(tmp_path) as running:
        old = pid_of(running)
        os.kill(old, signal.SIGKILL)
        running.until(lambda: _is_another(running, old))
        record = running.recycles()[-1]
        assert (record["reason"], record["pid"]) == ("crash", old)
        assert "killed by signal 9" in running.told()
        assert running.request("/echo")["pid"] == pid_of(running)


def test_only_the_request_in_the_killed_worker_is_lost(tmp_path):
    with service(tmp_path, workers=2) as running:
        lost = threading.Thread(target=lambda: _expect_reset(running))
        lost.start()
        (victim,) = running.until(
            lambda: [one["pid"] for one in running.workers() if one["in_flight"]]
        )
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):
            running.request("/echo")
        lost.join()


def _expect_reset(running):
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        running.request("/sleep?seconds=60")


def test_a_killed_zygote_is_replaced_and_its_workers_serve_on(tmp_path):
    with service(tmp_path, start="zygote") as running:
        worker, zygote = pid_of(running), zygote_of(running)
        os.kill(zygote, signal.SIGKILL)
        running.until(lambda: "the zygote" in running.told())
        assert running.request("/echo")["pid"] == worker
        running.recycle(0)
        running.until(running.recycles)
        assert pid_of(running) != worker
        assert zygote_of(running) != zygote


def test_an_orphan_of_a_killed_zygote_is_reaped(tmp_path):
    with service(tmp_path, start="zygote") as running:
        worker, zygote = pid_of(running), zygote_of(running)
        os.kill(zygote, signal.SIGKILL)
        running.until(lambda: "the zygote" in running.told())
        os.kill(worker, signal.SIGKILL)
        running.until(lambda: _is_another(running, worker))
        assert worker not in children_of(running.process.pid)
        assert "killed by signal 9" in running.told()


def test_workers_of_a_killed_supervisor_finish_their_requests_and_end(tmp_path):
    with service(tmp_path, workers=2, drain_timeout=5.0) as running:
        pids = [one["pid"] for one in running.workers()]
        zygote = zygote_of(running)
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(running.request("/sleep?seconds=1"))
        )
        asking.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        running.process.kill()
        running.process.wait()
        asking.join()
        assert len(answers) == 1
        running.until(lambda: not any(map(is_alive, [*pids, zygote])))


def test_another_service_can_bind_the_port_once_the_supervisor_is_killed(tmp_path):
    with service(tmp_path) as running:
        asking = threading.Thread(target=lambda: running.request("/sleep?seconds=1"))
        asking.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        running.process.kill()
        running.process.wait()
        running.until(lambda: _can_bind(running.port), 0.9)
        asking.join()


def _can_bind(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
            one.listen()
        except OSError:
            return False
        return True


@pytest.mark.parametrize("how", ["", "stubborn=yes", "session=yes", "session=yes&stubborn=yes"])
def test_what_a_worker_has_started_ends_with_it(tmp_path, how):
    """Also in a session of its own, as MCP's clients start their servers."""
    with service(tmp_path) as running:
        child = running.request(f"/start-child?{how}")["child"]
        assert is_alive(child)
        os.kill(pid_of(running), signal.SIGKILL)
        running.until(lambda: not is_alive(child), 4.0)


@pytest.mark.parametrize("how", ["", "session=yes"])
def test_what_a_worker_has_started_ends_with_it_when_it_is_replaced(tmp_path, how):
    with service(tmp_path) as running:
        child = running.request(f"/start-child?{how}")["child"]
        running.recycle(0)
        running.until(running.recycles)
        running.until(lambda: not is_alive(child), 4.0)


@pytest.mark.parametrize("how", ["stubborn=yes", "session=yes&stubborn=yes"])
def test_what_a_worker_has_started_ends_with_the_service(tmp_path, how):
    with service(tmp_path) as running:
        child = running.request(f"/start-child?{how}")["child"]
        running.end()
        assert not is_alive(child)


@pytest.mark.parametrize("how", ["", "session=yes"])
def test_what_a_worker_has_started_ends_at_once_with_the_supervisor(tmp_path, how):
    with service(tmp_path, drain_timeout=20.0) as running:
        child = running.request(f"/start-child?{how}")["child"]
        asking = threading.Thread(target=lambda: running.request("/sleep?seconds=2"))
        asking.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        running.process.kill()
        running.process.wait()
        running.until(lambda: not is_alive(child), 1.0)
        asking.join()


def test_a_hung_event_loop_is_noticed_and_its_place_is_logged(tmp_path):
    with service(tmp_path, workers=2, hang_timeout=1.0) as running:
        hanging = threading.Thread(target=lambda: _expect_hang(running))
        hanging.start()
        record = running.until(running.recycles)[0]
        hanging.join()
        assert record["reason"] == "hang"
        assert "in block" in running.told()  # faulthandler's picture of the stack
        # It is told in tenths.
        assert 1.0 <= record["evidence"]["heartbeat_age"] < 2.5


def _expect_hang(running):
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        running.request("/block?seconds=60")


def test_a_busy_loop_within_its_time_is_left_alone(tmp_path):
    with service(tmp_path, hang_timeout=3.0) as running:
        running.request("/hold-gil?seconds=1.5")
        assert running.recycles() == []


def test_a_stopped_supervisor_takes_nobody_for_hung(tmp_path):
    """Nothing that was stopped with it, nor its own late look."""
    with service(tmp_path, workers=2, hang_timeout=1.0) as running:
        everybody = [one["pid"] for one in running.workers()]
        for pid in (*everybody, running.process.pid):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.0)
        for pid in (running.process.pid, *everybody):
            os.kill(pid, signal.SIGCONT)
        for _ in range(5):
            running.request("/echo")
        assert running.recycles() == []


def test_a_replacement_that_fails_leaves_the_old_worker_and_is_tried_again(tmp_path):
    marker = tmp_path / "fail"
    with service(tmp_path, environment={"APP_FAIL_IF": str(marker)}) as running:
        old = pid_of(running)
        marker.write_text("fail")
        running.recycle(0)
        running.until(lambda: "told to fail" in running.told())
        assert running.request("/echo")["pid"] == old
        marker.unlink()
        running.until(running.recycles)
        assert pid_of(running) != old


def test_a_replacement_that_ends_with_code_0_counts_as_failed(tmp_path):
    marker = tmp_path / "fail"
    with service(tmp_path, environment={"APP_FAIL_IF": str(marker)}) as running:
        old = pid_of(running)
        marker.write_text("exit 0")
        running.recycle(0)
        running.until(lambda: "it ended with exit code 0" in running.told())
        assert running.request("/echo")["pid"] == old


def test_a_replacement_that_never_becomes_ready_is_killed(tmp_path):
    marker = tmp_path / "fail"
    environment = {"APP_FAIL_IF": str(marker)}
    with service(tmp_path, environment=environment, ready_timeout=1.0) as running:
        old = pid_of(running)
        marker.write_text("sleep")
        running.recycle(0)
        running.until(lambda: "was not ready within 1 s" in running.told())
        marker.unlink()
        running.until(running.recycles)
        assert pid_of(running) != old


def test_told_to_end_in_the_middle_of_a_replacement_it_ends(tmp_path):
    marker = tmp_path / "fail"
    with service(tmp_path, environment={"APP_FAIL_IF": str(marker)}) as running:
        marker.write_text("sleep")
        running.recycle(0)
        running.until(lambda: len(running.workers()) == 2)
        everybody = [one["pid"] for one in running.workers() if one["pid"]]
        assert running.end() == 0
        assert not any(map(is_alive, everybody))


def test_a_storm_of_signals_is_survived(tmp_path):
    with service(tmp_path, workers=2) as running:
        for _ in range(20):
            for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
                running.signal(number)
            running.request("/echo")
        # Signals that come together are one, so how many workers are wanted now is chance.
        running.until(
            lambda: running.wanted() == len(running.workers("ready")) == len(running.workers())
        )


def test_a_drained_worker_that_does_not_end_is_killed(tmp_path):
    with service(tmp_path, drain_timeout=0.5, kill_timeout=0.5) as running:
        old = pid_of(running)
        blocked = threading.Thread(target=lambda: _expect_hang(running))
        blocked.start()
        running.until(lambda: any(one["heartbeat_age"] > 0.3 for one in running.workers()))
        running.recycle(0)
        running.until(running.recycles)
        blocked.join()
        assert pid_of(running) != old


def test_no_descriptor_is_left_behind_by_replacements(tmp_path):
    with service(tmp_path, workers=1) as running:

        def descriptors(pid):
            return len(os.listdir(f"/proc/{pid}/fd"))

        def replace():
            count = sum(running.totals()["recycles"].values())
            running.recycle(0)
            running.until(lambda: sum(running.totals()["recycles"].values()) > count)

        clients = [http.client.HTTPConnection("127.0.0.1", running.port) for _ in range(5)]
        for client in clients:
            client.request("GET", "/about")
            client.getresponse().read()
        replace()
        zygote = zygote_of(running)
        before = descriptors(running.process.pid), descriptors(zygote)
        for _ in range(5):
            replace()
        running.until(
            lambda: (descriptors(running.process.pid), descriptors(zygote)) == before, 5.0
        )
        for client in clients:
            client.close()


def test_a_stopped_worker_is_killed_once_it_hangs(tmp_path):
    with service(tmp_path, workers=2, hang_timeout=1.0) as running:
        victim = running.workers("ready")[0]["pid"]
        os.kill(victim, signal.SIGSTOP)
        running.until(running.recycles)
        assert not is_alive(victim)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)


def test_a_hangup_while_the_service_ends_is_nothing(tmp_path):
    with service(tmp_path, start="zygote") as running:
        asking = threading.Thread(target=lambda: running.request("/sleep?seconds=1"))
        asking.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        running.signal(signal.SIGTERM)
        running.until(lambda: not _can_connect(running.port))
        running.signal(signal.SIGHUP)
        asking.join()
        assert running.process.wait(20) == 0


def _can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_new_version_that_cannot_be_forked_leaves_the_service_as_it_is(tmp_path):
    changing = tmp_path / "changing.py"
    changing.write_text("from application import app\n")
    path = f"{tmp_path}:{os.path.dirname(__file__)}"
    with service(tmp_path, app="changing:app", path=path, start="zygote") as running:
        worker = pid_of(running)
        changing.write_text(
            "import threading, time\nfrom application import app  # another length\n"
            "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        )
        running.signal(signal.SIGHUP)
        running.until(lambda: "it cannot be forked any more" in running.told())
        assert running.request("/echo")["pid"] == worker
        running.recycle(0)
        running.until(running.recycles)  # the old version is still there


def test_a_zygote_that_does_not_move_is_killed_and_the_service_goes_on(tmp_path):
    with service(tmp_path, start="zygote", ready_timeout=1.0) as running:
        worker, zygote = pid_of(running), zygote_of(running)
        os.kill(zygote, signal.SIGSTOP)
        running.recycle(0)
        running.until(lambda: "the zygote does not move" in running.told())
        running.until(running.recycles)
        assert pid_of(running) != worker
        assert running.end() == 0
