"""Feeds and the thread that follows them."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from memguard_native.memory import sampler
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.sampler import NativeFeed, ProbeFeed, SamplerThread

HOUR = 3600.0


def feeds(probe) -> dict[str, object]:
    return {"native": NativeFeed(HOUR), "probe": ProbeFeed(probe, HOUR, None)}


@pytest.fixture(params=["native", "probe"])
def feed(request, probe):
    feed = feeds(probe)[request.param]
    yield feed
    feed.close()


def test_first_sample_is_due_at_once(feed):
    feed.open()
    (sample,) = feed.wait()
    assert isinstance(sample, MemorySample)


def test_close_wakes_who_waits(feed):
    feed.open()
    feed.wait()
    found = []
    thread = threading.Thread(target=lambda: found.extend(feed.wait()))
    thread.start()
    feed.close()
    thread.join(10)
    assert not thread.is_alive()
    assert found == []


def test_close_is_idempotent_and_final(feed):
    feed.open()
    feed.wait()
    feed.close()
    feed.close()
    assert feed.wait() == []


def test_failures_are_counted_from_zero(feed):
    assert feed.failures == 0


def test_native_feed_gives_what_piled_up_oldest_first():
    feed = NativeFeed(0.001)
    feed.open()
    samples = []
    while len(samples) < 20:
        time.sleep(0.003)  # so that more than one is waiting
        samples += feed.wait()
    feed.close()
    times = [sample.monotonic_ns for sample in samples]
    assert times == sorted(set(times))


def test_probe_feed_keeps_to_the_interval(probe):
    feed = ProbeFeed(probe, 0.02, None)
    start = time.monotonic()
    feed.open()
    for _ in range(4):
        assert len(feed.wait()) == 1
    assert time.monotonic() - start >= 0.06


def test_probe_feed_does_not_make_up_for_what_it_missed(probe, monkeypatch):
    now = 100.0
    monkeypatch.setattr(sampler.time, "monotonic", lambda: now)
    feed = ProbeFeed(probe, 10.0, None)
    feed.open()
    now = 135.0  # three samples were missed
    assert len(feed.wait()) == 1
    assert feed._due == 140.0


def test_clock_stamps_the_samples(probe, clock):
    clock.advance(5)
    (sample,) = ProbeFeed(probe, HOUR, clock).take()
    assert sample.monotonic_ns == 1_005 * 10**9


# --- the thread ----------------------------------------------------------------------------------


class Run:
    """A SamplerThread whose observer can be held up."""

    def __init__(self, feed) -> None:
        self.samples = 0
        self.inside = threading.Event()
        self.leave = threading.Event()
        self.leave.set()
        self.thread = SamplerThread(feed, self.observe)

    def observe(self, _: MemorySample) -> None:
        self.samples += 1
        self.inside.set()
        self.leave.wait(10)

    @property
    def alive(self) -> bool:
        return self.thread._thread.is_alive()


@pytest.fixture
def run(feed):
    run = Run(feed)
    yield run
    run.leave.set()
    run.thread.stop()
    assert not run.alive


def test_thread_is_a_named_daemon(run):
    run.thread.start()
    assert run.thread._thread.daemon
    assert run.thread._thread.name == "memguard-memory"


def test_stop_joins_the_thread(run):
    run.thread.start()
    assert run.inside.wait(10)
    run.thread.stop()
    assert not run.alive
    assert not run.thread.running


def test_stop_waits_for_the_observer_and_lets_no_other_begin(run):
    run.leave.clear()
    run.thread.start()
    assert run.inside.wait(10)
    threading.Timer(0.05, run.leave.set).start()
    run.thread.stop()
    assert run.leave.is_set()
    assert run.samples == 1


def test_stop_gives_up_on_an_observer_that_does_not_return(run, monkeypatch):
    monkeypatch.setattr(sampler, "_STOP_TIMEOUT", 0.1)
    run.leave.clear()
    run.thread.start()
    assert run.inside.wait(10)
    run.thread.stop()
    assert run.alive


def test_samples_that_piled_up_are_dropped_after_a_stop(clock):
    class PiledUp(ProbeFeed):
        def wait(self) -> list[MemorySample]:
            return [MemorySample(number, 0) for number in range(5)]

    observed = []

    def observe(sample: MemorySample) -> None:
        observed.append(sample.monotonic_ns)
        if len(observed) == 2:
            thread.stop()

    thread = SamplerThread(PiledUp(None, HOUR, clock), observe)
    thread.start()
    thread._thread.join(10)
    assert observed == [0, 1]


def test_stop_before_start_lets_no_sample_through(run):
    run.thread.stop()
    run.thread.start()
    run.thread._thread.join(10)
    assert run.samples == 0


def test_thread_that_cannot_start_is_an_error_and_leaves_nothing_behind(run, monkeypatch):
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run.thread.start()
    assert not run.thread.running


def test_stop_in_a_signal_handler_that_interrupts_a_stop(run):
    """The handler runs inside of the wait of the outer stop()."""
    handled = threading.Event()

    def handle(*_: object) -> None:
        run.leave.set()
        run.thread.stop()
        handled.set()

    run.leave.clear()
    run.thread.start()
    assert run.inside.wait(10)
    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        run.thread.stop()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert handled.is_set()
    assert not run.alive


def test_stop_ends_while_its_caller_holds_the_lock_that_every_ending_thread_needs(run):
    """A signal handler may have interrupted the main thread inside of `threading` itself."""
    run.thread.start()
    assert run.inside.wait(10)
    start = time.monotonic()
    with threading._active_limbo_lock:
        run.thread.stop()
    assert time.monotonic() - start < 2
    run.thread._thread.join(10)


@pytest.mark.parametrize("error", [ValueError("no verdict"), SystemExit(3)])
def test_a_sample_that_cannot_be_judged_does_not_end_the_thread(probe, caplog, error):
    third = threading.Event()
    seen = []

    def judge(sample: MemorySample) -> None:
        seen.append(sample)
        if len(seen) == 3:
            third.set()
        raise error

    thread = SamplerThread(ProbeFeed(probe, 0.001, None), judge)
    thread.start()
    assert third.wait(10)
    assert thread.running
    thread.stop()
    assert thread.judging_failures == len(seen)
    assert [record.message for record in caplog.records] == [
        "a memory sample could not be judged; further failures are only counted"
    ]
