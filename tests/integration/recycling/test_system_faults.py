"""What the system or the service's owner does wrong: the service goes on wherever it can."""

from __future__ import annotations

from .supervised import service


def test_a_replacement_that_the_system_refuses_is_tried_again(tmp_path):
    with service(tmp_path, start="spawn", refused_starts=[2, 3]) as running:
        (old,) = running.workers("ready")
        running.recycle(0)
        running.until(running.recycles)
        assert running.told().count("worker 0 could not be started") == 2
        (new,) = running.workers("ready")
        assert new["pid"] != old["pid"]


def test_a_first_worker_that_the_system_refuses_ends_the_service(tmp_path):
    with service(tmp_path, start="spawn", refused_starts=[1], ready=False) as running:
        assert running.process.wait(30) == 1
        assert "the first worker could not be started" in running.told()


def test_a_callback_of_the_owner_that_fails_does_not_end_the_service(tmp_path):
    with service(tmp_path, on_ready_fails=True) as running:
        running.request("/echo")
        running.until(lambda: "on_ready failed" in running.told())
        assert running.end() == 0
