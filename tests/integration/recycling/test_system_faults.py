"""What the system or the service's owner does wrong: the service goes on wherever it can."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from memguard_native import segment

from .supervised import is_alive, service
from .test_faults import pid_of, zygote_of

ORIGINAL = segment._namespace_id


def test_a_replacement_that_the_system_refuses_is_tried_again(tmp_path):
    with service(tmp_path, start="spawn", refused_starts=[2, 3]) as running:
        (old,) = running.workers("ready")
        running.recycle(0)
        running.until(running.recycles)
        assert running.told().count("worker 0 could not be started") == 2
        (new,) = running.workers("ready")
        assert new["pid"] != old["pid"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_first_worker_that_the_system_refuses_ends_the_service(tmp_path, workers):
    with service(
        tmp_path, start="spawn", refused_starts=[1], ready=False, workers=workers
    ) as running:
        assert running.process.wait(30) == 1
        assert "the first worker could not be started" in running.told()


def test_a_callback_of_the_owner_that_fails_does_not_end_the_service(tmp_path):
    with service(tmp_path, on_ready_fails=True) as running:
        running.request("/echo")
        running.until(lambda: "on_ready failed" in running.told())
        assert running.end() == 0


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_a_service_needs_no_stderr(tmp_path, start):
    with service(tmp_path, start=start, has_stderr=False) as running:
        running.request("/echo")
        assert running.end() == 0


def test_a_worker_that_talks_nonsense_is_replaced_and_the_service_goes_on(tmp_path):
    with service(tmp_path, start="spawn", workers=2) as running:
        with suppress(OSError):  # it may be killed before it has answered
            running.request("/talk-nonsense")
        running.until(running.recycles)
        assert "what it sent cannot be understood" in running.told()
        running.until(lambda: len(running.workers("ready")) == 2)
        running.request("/echo")


def test_workers_are_replaced_until_the_drain_begins(tmp_path):
    with service(tmp_path, shutdown_delay=20.0) as running:
        old = pid_of(running)
        running.signal(signal.SIGTERM)
        running.until(lambda: "told to end" in running.told())
        os.kill(old, signal.SIGKILL)
        running.until(lambda: [one for one in running.workers("ready") if one["pid"] != old])
        assert running.request("/echo")["pid"] == pid_of(running)
        with pytest.raises(AssertionError, match="503"):
            running.request("/readyz", method="GET")
        running.signal(signal.SIGTERM)
        assert running.process.wait(10) == 0


def test_an_application_that_ignores_the_ends_of_children_ends_no_zygote(tmp_path):
    environment = {"APP_IGNORE_CHILDREN": "yes"}
    with service(tmp_path, app="imported:app", start="zygote", environment=environment) as running:
        zygote = zygote_of(running)
        running.recycle(0)
        running.until(running.recycles)
        assert zygote_of(running) == zygote


def test_what_a_zygote_has_started_that_was_killed_ends_with_its_last_worker(tmp_path):
    log = tmp_path / "process"
    environment = {"APP_PROCESS": "yes", "APP_LOG": str(log)}
    with service(tmp_path, app="imported:app", start="zygote", environment=environment) as running:
        (helper,) = [int(line.split()[1]) for line in lines_of(log, "process")]
        os.kill(zygote_of(running), signal.SIGKILL)
        running.until(lambda: "the application was loaded" in running.told().partition("gone")[2])
        assert is_alive(helper)
        running.recycle(0)
        running.until(lambda: not is_alive(helper))
        (second,) = [int(line.split()[1]) for line in lines_of(log, "process")][1:]
        os.kill(zygote_of(running), signal.SIGKILL)
        assert running.end() == 0
        assert not is_alive(second)


def lines_of(log, kind):
    return [line for line in log.read_text().splitlines() if line.startswith(f"{kind} ")]


def test_without_a_slot_in_shared_memory_workers_serve_all_the_same(tmp_path, monkeypatch):
    """As where a container that lives counts other process numbers."""
    monkeypatch.setenv("MEMGUARD_DIR", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(segment, "_namespace_id", lambda kind: 1 if kind == "pid" else ORIGINAL(kind))
        others = segment.attach("test")
    assert others.core.slot is not None
    with service(tmp_path) as running:
        assert "is not seen, nor whether it hangs" in running.told()
        old = pid_of(running)
        assert running.request("/echo")["pid"] == old
        running.recycle(0)
        running.until(running.recycles)
        assert pid_of(running) != old
