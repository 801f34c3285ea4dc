"""A real service under a real supervisor: start, replacement, signals, end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading

import pytest

from .supervised import children_of, is_alive, service

pytestmark = pytest.mark.stress


@pytest.fixture(params=["auto", "spawn"])
def start(request):
    return request.param


def pids(running):
    return {one["pid"] for one in running.workers("ready")}


def test_all_workers_serve(tmp_path, start):
    with service(tmp_path, workers=2, start=start) as running:
        assert running.request("/about")["is_supervised"]
        assert len(pids(running)) == 2
        method = running.ask({"command": "workers"})["supervisor"]["start"]
        assert method == ("spawn" if start == "spawn" else "zygote")


def test_the_replacement_is_ready_before_the_old_worker_ends(tmp_path, start):
    log = tmp_path / "app-log"
    with service(tmp_path, start=start, environment={"APP_LOG": str(log)}) as running:
        (old,) = pids(running)
        assert running.recycle(0) == {"schema": 1, "asked": [0]}
        running.until(running.recycles)
        (new,) = pids(running)
        lines = [line.split() for line in log.read_text().splitlines()]
    assert [(what, int(pid)) for what, pid, _ in lines[:3]] == [
        ("startup", old),
        ("startup", new),
        ("shutdown", old),
    ]


def test_a_kept_connection_goes_on_with_the_new_worker(tmp_path, start):
    with service(tmp_path, start=start) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        connection.connect()
        ours = connection.sock.getsockname()
        seen = set()
        for _ in range(3):
            connection.request("POST", "/echo", body=b"x" * 10)
            answer = connection.getresponse()
            seen.add(answer.read())
            running.recycle(0)
            count = len(seen)
            running.until(lambda count=count: len(running.recycles()) == count)
        assert connection.sock.getsockname() == ours
        assert len(seen) == 3
        record = running.recycles()[-1]
        assert (record["reason"], record["handed_over"], record["aborted"]) == ("manual", 1, 0)
        connection.close()


def test_a_worker_is_replaced_after_its_requests_and_health_does_not_count(tmp_path):
    with service(tmp_path, policy={"max_requests": 10}) as running:
        for _ in range(20):
            running.request("/healthz", method="GET")
        assert running.recycles() == []
        for _ in range(11):
            running.request("/echo")
        record = running.until(running.recycles)[0]
        assert record["reason"] == "requests"
        assert 10 <= record["evidence"]["requests"] <= 11


def test_inputs_and_tokens_that_the_application_reports_count(tmp_path):
    policy = {"max_tokens": 100, "jitter": 0.0}
    with service(tmp_path, policy=policy) as running:
        running.request("/count?inputs=3&tokens=60")
        running.request("/count?inputs=3&tokens=60")
        running.request("/echo")
        record = running.until(running.recycles)[0]
        assert (record["reason"], record["evidence"]["tokens"]) == ("tokens", 120)


def test_a_worker_is_replaced_at_its_age(tmp_path):
    policy = {"max_lifetime": 1.0}
    with service(tmp_path, policy=policy) as running:
        assert running.until(running.recycles)[0]["reason"] == "lifetime"


def test_a_worker_whose_backend_is_sick_asks_to_be_replaced(tmp_path):
    with service(tmp_path) as running:
        running.request("/ask")
        assert running.until(running.recycles)[0]["reason"] == "backend"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path):
    policy = {"max_requests": 5}
    with service(tmp_path, policy=policy, dry_run=True) as running:
        before = pids(running)
        for _ in range(10):
            running.request("/echo")
        running.until(lambda: "would" in running.told())
        assert pids(running) == before
        assert running.recycles() == []


def test_hangup_replaces_all_workers_one_by_one(tmp_path, start):
    with service(tmp_path, workers=2, start=start) as running:
        before = pids(running)
        running.signal(signal.SIGHUP)
        running.until(lambda: len(running.recycles()) == 2 and len(pids(running)) == 2)
        assert not pids(running) & before
        assert running.totals()["capacity_gap_seconds"] == 0


def test_hangup_loads_changed_code(tmp_path):
    code = tmp_path / "changing.py"
    code.write_text("from application import app\n")
    with service(tmp_path, app="changing:app", path=f"{tmp_path}:{os.path.dirname(__file__)}") as s:
        code.write_text("import time\nfrom application import ACTIONS, app, echo\n\n"
                        "ACTIONS['/new'] = echo\n")  # fmt: skip
        s.signal(signal.SIGHUP)
        s.until(s.recycles)
        assert s.request("/new")["length"] == 0


def test_one_more_and_one_less_worker_by_signals(tmp_path):
    with service(tmp_path, workers=1) as running:
        (oldest,) = pids(running)
        running.signal(signal.SIGTTIN)
        running.until(lambda: len(pids(running)) == 2)
        running.signal(signal.SIGTTOU)
        running.until(lambda: len(running.workers()) == 1)
        assert oldest not in pids(running)
        running.signal(signal.SIGTTOU)
        running.signal(signal.SIGUSR1)
        running.until(lambda: '"supervisor"' in running.told())
        assert len(running.workers()) == 1


def test_told_to_end_it_finishes_requests_and_leaves_nobody(tmp_path, start):
    with service(tmp_path, workers=2, start=start) as running:
        everybody = {*pids(running), *children_of(running.process.pid)}
        answers = []
        sleeping = threading.Thread(
            target=lambda: answers.append(running.request("/sleep?seconds=1"))
        )
        sleeping.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        assert running.end() == 0
        sleeping.join()
        assert len(answers) == 1
        assert not [pid for pid in everybody if is_alive(pid)]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port))


def test_a_second_signal_ends_it_within_a_second(tmp_path):
    with service(tmp_path) as running:
        hasty = threading.Thread(target=lambda: _expect_no_answer(running))
        hasty.start()
        running.until(lambda: any(one["in_flight"] for one in running.workers()))
        running.signal(signal.SIGTERM)
        running.until(lambda: "told to end" in running.told())
        running.signal(signal.SIGTERM)
        assert running.process.wait(5) == 0
        hasty.join()


def _expect_no_answer(running):
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        running.request("/sleep?seconds=60")


def test_readiness_says_no_before_the_drain_begins(tmp_path):
    with service(tmp_path, shutdown_delay=1.0) as running:
        assert running.request("/readyz", method="GET")["status"] == "ok"
        running.signal(signal.SIGTERM)
        running.until(lambda: "told to end" in running.told())
        with pytest.raises(AssertionError, match="the service is ending"):
            running.until(lambda: running.request("/readyz", method="GET") is None, 0.5)


def test_without_overlap_the_old_worker_ends_first(tmp_path):
    log = tmp_path / "app-log"
    environment = {"APP_LOG": str(log)}
    with service(tmp_path, overlap=False, environment=environment) as running:
        running.recycle(0)
        running.until(running.recycles)
        running.until(lambda: running.workers("ready"))
        order = [line.split()[0] for line in log.read_text().splitlines()]
        assert order == ["startup", "shutdown", "startup"]


def test_an_application_object_is_served_by_fork(tmp_path):
    with service(tmp_path, as_object=True, workers=2) as running:
        running.recycle(0)
        running.until(running.recycles)
        assert len(pids(running)) == 2


def test_an_application_with_threads_is_spawned_and_the_warning_names_them(tmp_path):
    threaded = tmp_path / "threaded.py"
    threaded.write_text(
        "import threading, time\nfrom application import app\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    )
    path = f"{tmp_path}:{os.path.dirname(__file__)}"
    with service(tmp_path, app="threaded:app", path=path) as running:
        assert running.ask({"command": "workers"})["supervisor"]["start"] == "spawn"
        assert "workers are spawned, not forked: the application has started threads (Thread-1" in (
            running.told()
        )


def test_a_zygote_that_cannot_be_forked_safely_is_a_config_error(tmp_path):
    threaded = tmp_path / "threaded.py"
    threaded.write_text(
        "import threading, time\nfrom application import app\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    )
    path = f"{tmp_path}:{os.path.dirname(__file__)}"
    with service(tmp_path, app="threaded:app", path=path, start="zygote", ready=False) as running:
        assert running.process.wait(30) == 2
        assert "start must be 'auto' or 'spawn'" in running.told()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"app": "application:missing"}, "app must name something that is there"),
        ({"app": "no_such_module:app"}, "there is no 'no_such_module'"),
        ({"no_such_option": 1}, "no_such_option is not an option of uvicorn"),
        ({"reload": True}, "reload is for development"),
        ({"workers": 0}, "workers must be a whole number"),
    ],
)
def test_bad_configuration_ends_with_one_sentence(tmp_path, start, arguments, problem):
    with service(tmp_path, start=start, ready=False, **arguments) as running:
        assert running.process.wait(30) == 2
        assert problem in running.told()


def test_an_application_that_fails_at_the_first_start_ends_the_service(tmp_path, start):
    marker = tmp_path / "fail"
    marker.write_text("fail")
    environment = {"APP_FAIL_IF": str(marker)}
    with service(tmp_path, start=start, environment=environment, ready=False) as running:
        assert running.process.wait(30) == 1
        assert "told to fail" in running.told()
        assert "the first worker could not start" in running.told()
