"""When a worker asks to be replaced, with a server, a channel and a loop that the test plays."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from memguard_native.errors import MemguardError
from memguard_native.recycling.messages import Kind
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.worker_wishes import WorkerWishes


class Channel:
    def __init__(self):
        self.told = []

    def send(self, kind, *, payload):
        assert kind is Kind.wish
        self.told.append(payload)


class Loop:
    """What other threads have it do is done when the test says so."""

    def __init__(self):
        self._calls = []

    def call_soon_threadsafe(self, call, *arguments):
        self._calls.append((call, arguments))

    def turn(self):
        calls, self._calls = self._calls, []
        for call, arguments in calls:
            call(*arguments)


class Surroundings:
    """A worker that is ready for `age` seconds; None: it is not ready yet."""

    def __init__(self, *, age=0.0, **policy):
        self.channel = Channel()
        self.loop = Loop()
        self.server = SimpleNamespace(requests=0, in_flight=2, connections=3)
        resolved = RecyclePolicy(jitter=0.0, **policy).resolved(
            workers=1, limit_bytes=None, cgroup_limit_bytes=None
        )
        self.wishes = WorkerWishes(self.channel, resolved)
        self.wishes.server = self.server
        self.wishes.loop = self.loop
        if age is not None:
            self.wishes.ready_at = time.monotonic() - age

    def answer(self, requests):
        self.server.requests = requests
        self.wishes.on_request()

    @property
    def asked(self):
        """For which reasons, in order."""
        return [told["reason"] for told in self.channel.told if "is_over" not in told]


# --- limits ---------------------------------------------------------------------------------------


def test_the_answer_that_reaches_the_limit_asks_and_says_what_was_done():
    worker = Surroundings(max_requests=10)
    worker.answer(9)
    assert worker.asked == []
    worker.answer(10)
    (told,) = worker.channel.told
    assert told["reason"] is Reason.requests
    work = {"requests": 10, "in_flight": 2, "connections": 3, "inputs": 0, "tokens": 0}
    assert told["evidence"] == {**work, "age": pytest.approx(0.0, abs=5.0)}


def test_a_limit_that_stays_reached_asks_once():
    worker = Surroundings(max_requests=10)
    worker.answer(10)
    worker.answer(11)
    worker.wishes.check_limits()
    assert worker.asked == [Reason.requests]


@pytest.mark.parametrize("unit", ["inputs", "tokens"])
def test_what_the_application_counts_asks_on_the_event_loop(unit):
    worker = Surroundings(**{f"max_{unit}": 100})
    count = {"inputs": 0, "tokens": 0}
    worker.wishes.count(**{**count, unit: 60})
    worker.wishes.count(**{**count, unit: 60})
    assert worker.asked == []
    worker.loop.turn()
    assert worker.asked == [Reason(unit)]
    assert worker.channel.told[0]["evidence"][unit] == 120


def test_age_asks_once_it_is_looked_at():
    worker = Surroundings(age=60.5, max_lifetime=60.0)
    worker.wishes.check_limits()
    assert worker.asked == [Reason.lifetime]
    assert worker.channel.told[0]["evidence"]["age"] == pytest.approx(60.5, abs=0.5)


def test_limits_hold_from_the_time_that_the_worker_is_ready():
    worker = Surroundings(age=None, max_requests=10)
    worker.answer(10)
    assert worker.asked == []
    worker.wishes.ready_at = time.monotonic()
    worker.wishes.check_limits()
    assert worker.asked == [Reason.requests]


# --- what others want of it -----------------------------------------------------------------------


def test_who_asks_from_another_thread_is_heard_on_the_event_loop():
    worker = Surroundings()
    worker.wishes.ask_from_any_thread(Reason.leak, {"cause": "native"})
    assert worker.asked == []
    worker.loop.turn()
    assert worker.channel.told == [{"reason": Reason.leak, "evidence": {"cause": "native"}}]


def test_without_evidence_of_its_own_a_wish_tells_the_work():
    worker = Surroundings()
    worker.wishes.ask(Reason.backend)
    assert worker.channel.told[0]["evidence"] == worker.wishes.work()


def test_only_a_reason_that_counts_more_is_told_after_another():
    worker = Surroundings()
    for reason in (Reason.memory, Reason.memory, Reason.lifetime, Reason.requests):
        worker.wishes.ask(reason)
    assert worker.asked == [Reason.memory, Reason.lifetime]


def test_a_reason_that_has_vanished_may_come_again():
    worker = Surroundings()
    worker.wishes.ask(Reason.memory)
    worker.wishes.withdraw(Reason.memory)
    assert worker.channel.told[-1] == {"reason": Reason.memory, "is_over": True}
    worker.wishes.ask(Reason.memory)
    assert worker.asked == [Reason.memory, Reason.memory]


def test_another_wish_than_the_one_that_stands_is_not_withdrawn():
    worker = Surroundings()
    worker.wishes.ask(Reason.lifetime)
    worker.wishes.withdraw(Reason.memory)
    worker.wishes.ask(Reason.requests)
    assert worker.asked == [Reason.lifetime]
    assert len(worker.channel.told) == 1


def test_before_its_event_loop_runs_nobody_can_ask():
    worker = Surroundings()
    worker.wishes.loop = None
    with pytest.raises(MemguardError, match="once its event loop runs"):
        worker.wishes.ask_from_any_thread(Reason.manual)


def test_a_wish_that_comes_after_the_event_loop_has_ended_is_no_failure():
    worker = Surroundings()
    worker.wishes.loop = asyncio.new_event_loop()
    worker.wishes.loop.close()
    worker.wishes.ask_from_any_thread(Reason.manual)
    assert worker.asked == []
