"""Start, stop, and what a monitor promises to its callers."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from memguard_native import _core
from memguard_native.memory import monitor as module
from memguard_native.memory.alert import MemoryState
from memguard_native.memory.monitor import MemoryMonitor, start_memory_monitoring
from memguard_native.memory.sample import MemorySample


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "memguard-memory"]


class Seen:
    """An on_sample that tells when it was called."""

    def __init__(self) -> None:
        self.first = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, _: object) -> None:
        self.threads.append(threading.current_thread())
        self.first.set()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(params=["native", "fake"])
def monitor(request, seen, probe):
    given = {} if request.param == "native" else {"probe": probe}
    monitor = MemoryMonitor(3600.0, on_sample=seen, **given)
    yield monitor
    monitor.stop()
    assert sampler_threads() == []


def test_defaults_are_those_of_the_original():
    config = MemoryMonitor()._config
    assert (config.interval, config.window, config.threshold_mb_per_hour) == (60.0, 12, 10.0)


def test_nothing_runs_before_start(monitor):
    assert not monitor.running
    assert monitor.state is MemoryState.learning
    assert sampler_threads() == []


def test_start_samples_at_once_on_a_thread_of_its_own(monitor, seen):
    monitor.start()
    assert monitor.running
    assert seen.first.wait(10)
    assert seen.threads == sampler_threads()


def test_second_start_starts_nothing(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    monitor.start()
    assert len(sampler_threads()) == 1


def test_stop_ends_the_thread_and_is_idempotent(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    monitor.stop()
    assert not monitor.running
    assert sampler_threads() == []
    monitor.stop()


def test_stop_before_start_does_nothing(monitor):
    monitor.stop()
    assert not monitor.running


def test_what_was_seen_can_be_read_after_the_stop(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    monitor.stop()
    assert monitor.snapshot().sample_count == 1


def test_start_after_stop_learns_anew(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    monitor.stop()
    seen.first.clear()
    monitor.start()
    assert seen.first.wait(10)
    assert monitor.snapshot().sample_count == 1
    assert monitor.state is MemoryState.learning


def test_start_from_many_threads_starts_one(monitor):
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait(10)
        monitor.start()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(sampler_threads()) == 1


def test_stop_from_many_threads_is_safe(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    threads = [threading.Thread(target=monitor.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sampler_threads() == []


def test_stop_from_a_callback_does_not_wait_for_itself():
    stopped = threading.Event()

    def stop_now(_: object) -> None:
        monitor.stop()
        stopped.set()

    monitor = MemoryMonitor(0.001, on_sample=stop_now)
    monitor.start()
    assert stopped.wait(10)
    for thread in sampler_threads():
        thread.join(10)
    assert not monitor.running
    assert monitor.snapshot().sample_count == 1


def test_start_from_a_callback_that_stopped_begins_a_run_of_its_own():
    runs = []

    def restart_once(_: object) -> None:
        runs.append(threading.current_thread())
        if len(runs) == 1:
            monitor.stop()
            monitor.start()
        else:
            done.set()

    done = threading.Event()
    monitor = MemoryMonitor(3600.0, on_sample=restart_once)
    monitor.start()
    assert done.wait(10)
    monitor.stop()
    assert runs[0] is not runs[1]
    # The end of the first run's callback was not written into the second run.
    assert monitor.snapshot().sample_count == 1


def test_thread_that_cannot_start_leaves_the_monitor_stopped(monitor, monkeypatch):
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            monitor.start()
    assert not monitor.running
    assert not module._running
    monitor.start()
    assert monitor.running


def test_tick_is_refused_while_the_monitor_runs(monitor):
    monitor.start()
    with pytest.raises(RuntimeError, match="not running"):
        monitor.tick()


def test_tick_takes_one_sample_on_the_calling_thread(monitor, seen):
    monitor.tick()
    assert seen.threads == [threading.current_thread()]
    assert monitor.snapshot().sample_count == 1


def test_monitor_that_nobody_keeps_goes_on():
    start_memory_monitoring(interval=3600.0)
    gc.collect()
    (monitor,) = module._running.values()
    assert monitor.running
    monitor.stop()


def test_stopped_monitor_is_not_kept_alive():
    monitor = MemoryMonitor(3600.0)
    monitor.start()
    monitor.stop()
    gone = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert gone() is None


def test_start_memory_monitoring_returns_its_idempotent_stop(seen):
    stop = start_memory_monitoring(on_sample=seen)
    assert seen.first.wait(10)
    assert stop() is None
    assert stop() is None
    assert sampler_threads() == []


def test_start_memory_monitoring_logs_every_sample(caplog, seen):
    caplog.set_level("INFO", "memguard_native.memory")
    stop = start_memory_monitoring(on_sample=seen)
    assert seen.first.wait(10)
    stop()
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.message.endswith("learning")
    assert record.rss_bytes > 0


def test_monitors_do_not_know_of_each_other(probe):
    first, second = Seen(), Seen()
    monitors = [MemoryMonitor(3600.0, on_sample=first), MemoryMonitor(0.01, on_sample=second)]
    for monitor in monitors:
        monitor.start()
    assert first.first.wait(10)
    assert second.first.wait(10)
    monitors[0].stop()
    assert not monitors[0].running
    assert monitors[1].running
    monitors[1].stop()


def test_default_probe_samples_natively_where_it_can(monitor):
    if monitor._config.probe is None:
        assert type(monitor._new_feed()).__name__ == (
            "NativeFeed" if _core.HAS_NATIVE_PROBE else "ProbeFeed"
        )
    else:
        assert type(monitor._new_feed()).__name__ == "ProbeFeed"


# --- threads that meet ---------------------------------------------------------------------------


def test_an_explanation_that_is_made_while_another_thread_starts_does_not_hide_its_run(
    monitor, seen, monkeypatch
):
    make = MemoryMonitor._new_run

    def start_meanwhile(self, *args):
        run = make(self, *args)
        monkeypatch.setattr(MemoryMonitor, "_new_run", make)
        thread = threading.Thread(target=self.start)
        thread.start()
        thread.join(1)  # it may have to wait for the explanation
        threads.append(thread)
        return run

    threads: list[threading.Thread] = []
    monkeypatch.setattr(MemoryMonitor, "_new_run", start_meanwhile)
    monitor.explain()
    threads[0].join(10)
    assert seen.first.wait(10)
    monitor.stop()
    assert monitor.snapshot().sample_count == 1


def test_a_stop_that_ends_late_does_not_close_the_run_that_was_started_meanwhile(probe):
    def hang_once(_: object) -> None:
        if not inside.is_set():
            inside.set()
            leave.wait(10)

    inside, leave = threading.Event(), threading.Event()
    monitor = MemoryMonitor(3600.0, on_sample=hang_once, probe=probe)
    monitor.start()
    assert inside.wait(10)
    first, closed = monitor._run, []
    stopping = threading.Thread(target=monitor.stop)
    stopping.start()
    while monitor.running:
        time.sleep(0.001)
    monitor.start()
    assert monitor._run is not first
    monitor._run.close = lambda: closed.append("second")
    leave.set()
    stopping.join(10)
    assert closed == []
    monitor.stop()


def test_after_a_stop_by_a_callback_no_other_callback_begins(probe, clock):
    called = []

    def stop(_: object) -> None:
        called.append("on_sample")
        if len(called) == 12:
            monitor.stop()

    monitor = MemoryMonitor(
        0.001,
        rule="window",
        threshold_mb_per_hour=0.001,
        on_sample=stop,
        on_alert=lambda _: called.append("on_alert"),
        on_action=lambda _: called.append("on_action"),
        probe=Growing(),
    )
    monitor.start()
    for thread in sampler_threads():
        thread.join(10)
    assert called == ["on_sample"] * 12


class Growing:
    """A probe of a process that grows by a MB a sample."""

    def __init__(self) -> None:
        self.taken = 0

    def sample(self) -> MemorySample:
        self.taken += 1
        return MemorySample(time.monotonic_ns(), 0, anon_bytes=self.taken * 2**20)


def test_a_forked_child_abandons_the_run_of_its_parent(monitor, seen):
    monitor.start()
    assert seen.first.wait(10)
    thread, run = monitor._thread, monitor._run
    monitor._restart_in_child(thread)
    assert run.is_closed
    assert monitor._run is not run
    thread._feed.close()  # here the thread is there, unlike in a child
    thread._thread.join(10)


def test_memory_is_judged_also_where_its_history_cannot_be_kept(probe, clock, caplog):
    monitor = MemoryMonitor(probe=probe, clock=clock)

    class Full:
        def find_learnt(self):
            return None

        def __call__(self, sample):
            raise OSError("no space left on device")

        tell_limit = keep_learnt = tell_requests = __call__

    monitor._keep = Full()
    monitor.tick()
    monitor.tick()
    assert monitor.snapshot().sample_count == 2
    assert [record.message for record in caplog.records] == [
        "memory history could not be kept; further failures are not logged"
    ]
