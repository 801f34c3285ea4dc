"""Connections on their way from one worker to another: none is lost, none is served twice."""

from __future__ import annotations

import os

import pytest

from memguard_native.recycling.messages import Channel, open_channel
from memguard_native.recycling.relay import Relay


class Worker:
    """One that serves; `inbox()` is what it has been sent: (seq, bytes that it can read)."""

    def __init__(self, generation, connections=0):
        self.generation = generation
        self.connections = connections
        self.channel, other = open_channel()
        self.theirs = Channel(other)

    def inbox(self):
        found = []
        while (frame := self.theirs.receive()) is not None:
            os.set_blocking(frame.descriptor, False)
            found.append((frame.seq, os.read(frame.descriptor, 10)))
            os.close(frame.descriptor)
        return found

    def close(self):
        self.channel.close()
        self.theirs.close()


@pytest.fixture
def workers():
    found = [Worker(1), Worker(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture
def relay():
    made = Relay(capacity=100)
    yield made
    made.abandon()


def connection(text):
    """A descriptor from which this text is to be read."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    return reading


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_connection_goes_to_the_worker_with_the_fewest(relay, workers):
    first, second = workers
    first.connections = 5
    relay.take(connection(b"a"))
    relay.pump(workers)
    assert first.inbox() == []
    assert second.inbox() == [(1, b"a")]


def test_many_connections_are_spread(relay, workers):
    for _ in range(10):
        relay.take(connection(b"a"))
    relay.pump(workers)
    assert [len(one.inbox()) for one in workers] == [5, 5]


def test_our_copy_is_kept_until_the_connection_is_adopted(relay, workers):
    descriptor = connection(b"a")
    relay.take(descriptor)
    relay.pump(workers[:1])
    assert is_open(descriptor)
    relay.adopted(1)
    assert not is_open(descriptor)
    assert relay.is_empty


def test_what_a_dead_worker_had_not_adopted_goes_to_another(relay, workers):
    first, second = workers
    for text in (b"a", b"b"):
        relay.take(connection(text))
    relay.pump([first])
    relay.adopted(1)
    relay.lost(first.generation)
    relay.pump([second])
    assert second.inbox() == [(3, b"b")]


def test_what_was_adopted_is_never_sent_again(relay, workers):
    first, second = workers
    relay.take(connection(b"a"))
    relay.pump([first])
    relay.adopted(1)
    relay.lost(first.generation)
    relay.pump([second])
    assert second.inbox() == []


def test_what_did_not_arrive_goes_to_the_next(relay, workers):
    relay.take(connection(b"a"))
    relay.pump(workers[:1])
    relay.refused(1)
    relay.pump(workers[1:])
    assert workers[1].inbox() == [(2, b"a")]


def test_a_worker_without_descriptors_is_asked_again_later(relay, workers):
    first = workers[0]
    relay.take(connection(b"a"))
    relay.pump([first])
    relay.refused(1)
    assert not relay.may_send_to([first])
    relay.pump([first])
    assert first.connections == 1
    relay.try_all_again()
    assert relay.may_send_to([first])
    relay.pump([first])
    assert [seq for seq, _ in first.inbox()] == [1, 2]


def test_a_worker_without_room_is_passed_over(relay, workers):
    first, second = workers
    first.connections = -10_000  # always the one with the fewest
    taken = 0
    while not second.connections:
        relay.take(connection(b"a"))
        taken += 1
        relay.pump(workers)
    received = len(first.inbox()) + len(second.inbox())
    assert received == taken
    assert not relay.may_send_to(workers)


def test_without_workers_connections_wait(relay, workers):
    relay.take(connection(b"a"))
    relay.pump([])
    assert relay.may_send_to(workers)
    relay.pump(workers)
    assert not relay.may_send_to(workers)


def test_a_worker_that_is_gone_gets_nothing(relay, workers):
    first, second = workers
    first.theirs.close()
    relay.take(connection(b"a"))
    relay.pump(workers)
    assert second.inbox() == [(1, b"a")]


def test_it_is_full_with_what_it_holds_waiting_or_sent(workers):
    relay = Relay(capacity=2)
    relay.take(connection(b"a"))
    assert not relay.is_full
    relay.pump(workers)
    relay.take(connection(b"b"))
    assert relay.is_full
    relay.adopted(1)
    assert not relay.is_full
    relay.abandon()


def test_abandon_closes_all_and_counts_them(relay, workers):
    descriptors = [connection(b"a"), connection(b"b")]
    relay.take(descriptors[0])
    relay.pump(workers)
    relay.take(descriptors[1])
    assert relay.abandon() == 2
    assert not any(map(is_open, descriptors))
    assert relay.is_empty
