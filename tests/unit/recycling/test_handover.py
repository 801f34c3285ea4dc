"""Handing out: when a connection is given away, and that it is left alone otherwise."""

from __future__ import annotations

import pytest

from memguard_native.recycling.handover import Handover


class Loop:
    """A loop whose time passes when the test says so."""

    def __init__(self):
        self.now = 0.0
        self._timers = []

    def call_soon(self, callback, *arguments):
        return self.call_later(0.0, callback, *arguments)

    def call_later(self, delay, callback, *arguments):
        timer = Timer(self.now + delay, callback, arguments)
        self._timers.append(timer)
        return timer

    def advance(self, seconds):
        """Run what is due, in order of time, for so many seconds."""
        end = self.now + seconds
        while due := [
            timer for timer in self._timers if timer.at <= end and not timer.is_cancelled
        ]:
            timer = min(due, key=lambda timer: timer.at)
            self._timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.callback(*timer.arguments)
        self.now = end

    def turn(self):
        self.advance(0.0)


class Timer:
    def __init__(self, at, callback, arguments):
        self.at = at
        self.callback = callback
        self.arguments = arguments
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


class Connection:
    """A protocol and its transport in one, with a log of what was done to them."""

    def __init__(self, descriptor=7, *, is_idle=True, unsent=0, closing=False):
        self.descriptor = descriptor
        self.is_idle = is_idle
        self.unsent = unsent
        self.closing = closing
        self.log = []
        self.transport = self

    def forget_timer(self):
        self.log.append("timer")

    def get_extra_info(self, name):
        assert name == "socket"
        return self

    def fileno(self):
        return self.descriptor

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        self.log.append("pause")

    def resume_reading(self):
        self.log.append("resume")

    def abort(self):
        self.log.append("abort")
        self.closing = True


class Queue:
    """Where descriptors are sent; `room` of them fit."""

    def __init__(self, room=100):
        self.room = room
        self.sent = []

    def hand_out(self, descriptor):
        if self.room == 0:
            return False
        self.room -= 1
        self.sent.append(descriptor)
        return True


@pytest.fixture
def loop():
    return Loop()


def test_an_idle_connection_is_sent_and_only_then_given_up(loop):
    queue = Queue()
    connection = Connection()
    order = []

    def hand_out(descriptor):
        order.append(list(connection.log))
        return queue.hand_out(descriptor)

    Handover(loop, hand_out).offer(connection)
    loop.turn()
    assert queue.sent == [7]
    assert order == [["pause"]]
    assert connection.log == ["pause", "timer", "abort"]


def test_nothing_happens_within_the_offer_itself(loop):
    queue = Queue()
    Handover(loop, queue.hand_out).offer(Connection())
    assert queue.sent == []


@pytest.mark.parametrize("state", [{"is_idle": False}, {"closing": True}])
def test_a_connection_that_is_busy_or_closing_is_left_alone(loop, state):
    queue = Queue()
    connection = Connection(**state)
    Handover(loop, queue.hand_out).offer(connection)
    loop.advance(1.0)
    assert (queue.sent, connection.log) == ([], [])


def test_a_request_that_begins_after_the_offer_is_served_here(loop):
    queue = Queue()
    connection = Connection()
    handover = Handover(loop, queue.hand_out)
    handover.offer(connection)
    connection.is_idle = False
    loop.turn()
    assert connection.log == []
    connection.is_idle = True
    handover.offer(connection)
    loop.turn()
    assert queue.sent == [7]


def test_an_answer_that_is_not_written_yet_is_waited_for(loop):
    queue = Queue()
    connection = Connection(unsent=1)
    Handover(loop, queue.hand_out).offer(connection)
    loop.turn()
    assert (queue.sent, connection.log) == ([], [])
    connection.unsent = 0
    loop.advance(0.0005)
    assert queue.sent == [7]


def test_a_slow_reader_is_looked_at_ever_less_often(loop):
    connection = Connection(unsent=1)
    looks = []
    connection.get_write_buffer_size = lambda: looks.append(loop.now) or connection.unsent
    Handover(loop, Queue().hand_out).offer(connection)
    loop.advance(0.1)
    assert [round(1e4 * at) for at in looks[:6]] == [0, 5, 15, 35, 75, 155]
    assert len(looks) <= 12


def test_a_full_queue_leaves_the_connection_readable_and_is_tried_again(loop):
    queue = Queue(room=0)
    connection = Connection()
    Handover(loop, queue.hand_out).offer(connection)
    loop.turn()
    assert connection.log == ["pause", "resume"]
    queue.room = 1
    loop.advance(0.001)
    assert queue.sent == [7]
    assert connection.log[2:] == ["pause", "timer", "abort"]


def test_a_full_queue_costs_one_attempt_however_many_wait(loop):
    queue = Queue(room=2)
    connections = [Connection(number) for number in range(1000)]
    handover = Handover(loop, queue.hand_out)
    for connection in connections:
        handover.offer(connection)
    loop.turn()
    assert [len(connection.log) for connection in connections[:5]] == [3, 3, 2, 0, 0]
    queue.room = 1000
    loop.advance(0.001)
    assert queue.sent == list(range(1000))


def test_a_connection_offered_twice_is_sent_once(loop):
    queue = Queue()
    handover = Handover(loop, queue.hand_out)
    connection = Connection()
    handover.offer(connection)
    handover.offer(connection)
    loop.turn()
    handover.offer(connection)
    loop.turn()
    assert queue.sent == [7]


def test_a_connection_that_cannot_be_sent_at_all_stays_readable(loop):
    def hand_out(descriptor):
        raise BrokenPipeError

    connection = Connection()
    Handover(loop, hand_out).offer(connection)
    with pytest.raises(BrokenPipeError):
        loop.turn()
    assert connection.log == ["pause", "resume"]


def test_after_the_stop_nothing_is_sent(loop):
    queue = Queue()
    handover = Handover(loop, queue.hand_out)
    slow = Connection(unsent=1)
    handover.offer(slow)
    loop.turn()
    handover.offer(Connection())
    handover.stop()
    slow.unsent = 0
    handover.offer(Connection())
    loop.advance(1.0)
    assert queue.sent == []
