"""Frames, and channels that never block and lose nothing."""

from __future__ import annotations

import os
import socket

import pytest

from memguard_native.recycling.messages import (
    MAX_PAYLOAD_BYTES,
    NOT_UNDERSTOOD,
    Channel,
    ChannelClosedError,
    Kind,
    open_channel,
    shortened,
)


@pytest.fixture
def ends():
    ours, other = open_channel()
    theirs = Channel(other)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_frame_arrives_as_it_was_sent(ends):
    ours, theirs = ends
    ours.send(Kind.wish, seq=7, arg=2**63, payload={"reason": "requests", "evidence": {"n": 1}})
    frame = theirs.receive()
    assert (frame.kind, frame.seq, frame.arg) == (Kind.wish, 7, 2**63)
    assert frame.payload == {"reason": "requests", "evidence": {"n": 1}}
    assert frame.descriptor is None


def test_receive_tells_that_there_is_nothing_now(ends):
    assert ends[1].receive() is None


def test_the_end_of_one_process_is_the_end_of_the_channel_after_all_that_it_sent(ends):
    ours, theirs = ends
    ours.send(Kind.adopted, seq=1)
    ours.close()
    assert theirs.receive().seq == 1
    with pytest.raises(ChannelClosedError):
        theirs.receive()


def test_what_finds_a_full_queue_waits_and_keeps_its_order(ends):
    ours, theirs = ends
    count = 0
    while not ours.has_waiting:
        ours.send(Kind.adopted, seq=count)
        count += 1
    for seq in range(count, count + 50):
        ours.send(Kind.adopted, seq=seq)
    seen = []
    while len(seen) < count + 50:
        frame = theirs.receive()
        if frame is None:
            ours.flush()
        else:
            seen.append(frame.seq)
    assert seen == list(range(count + 50))
    assert not ours.has_waiting


def test_a_descriptor_arrives_as_one_that_no_child_inherits(ends):
    ours, theirs = ends
    reading, writing = os.pipe()
    assert ours.send_descriptor(Kind.connection, writing, seq=3)
    os.close(writing)
    frame = theirs.receive()
    assert not os.get_inheritable(frame.descriptor)
    os.write(frame.descriptor, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(frame.descriptor)
    os.close(reading)


def test_a_descriptor_that_finds_no_room_is_not_sent_later(ends):
    ours, theirs = ends
    reading, writing = os.pipe()
    sent = 0
    while ours.send_descriptor(Kind.connection, writing, seq=sent):
        sent += 1
    assert not ours.has_waiting
    received = []
    while (frame := theirs.receive()) is not None:
        received.append(frame.seq)
        os.close(frame.descriptor)
    assert received == list(range(sent))
    os.close(reading)
    os.close(writing)


def test_a_descriptor_for_an_end_that_is_gone_is_told(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ChannelClosedError):
        ours.send_descriptor(Kind.connection, 0)


def test_a_frame_for_an_end_that_is_gone_is_forgotten(ends):
    ours, theirs = ends
    theirs.close()
    ours.send(Kind.adopted, seq=1)
    assert not ours.has_waiting


def test_a_descriptor_without_room_in_this_process_arrives_as_none(ends):
    import resource

    ours, theirs = ends
    assert ours.send_descriptor(Kind.connection, ours.fileno(), seq=9)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        frame = theirs.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (frame.seq, frame.descriptor) == (9, None)


def test_a_payload_that_is_too_large_is_refused(ends):
    with pytest.raises(ValueError, match="at most 4096"):
        ends[0].send(Kind.ended, payload={"failed": "x" * MAX_PAYLOAD_BYTES})


def test_no_child_inherits_a_channel(ends):
    ours, theirs = ends
    assert not os.get_inheritable(ours.fileno())
    assert not os.get_inheritable(theirs.fileno())


def test_what_is_sent_now_is_never_kept_for_later(ends):
    ours, theirs = ends
    sent = 0
    while ours.send_now(Kind.adopted, seq=sent):
        sent += 1
    assert not ours.has_waiting
    received = 0
    while theirs.receive() is not None:
        received += 1
    assert received == sent
    ours.send(Kind.adopted)
    assert ours.send_now(Kind.adopted)


def test_an_end_that_had_not_read_all_is_heard_to_its_last_frame(ends):
    """Else a connection that was adopted, and read from, would go to another worker."""
    ours, theirs = ends
    theirs.send(Kind.settings, payload={"unready": None})  # never read
    ours.send(Kind.adopted, seq=7)
    ours.close()
    assert theirs.receive().seq == 7
    with pytest.raises(ChannelClosedError):
        theirs.receive()


@pytest.mark.parametrize("data", [b"x", b"\xff" * 40, b"E\0\1\0" + bytes(12) + b"{", bytes(16)])
def test_nonsense_raises_what_a_reader_has_to_expect(data):
    ours, theirs = open_channel()
    with theirs:
        theirs.send(data)
        with pytest.raises(NOT_UNDERSTOOD):
            ours.receive()
        ours.close()


def test_a_descriptor_that_comes_with_nonsense_is_closed():
    ours, theirs = open_channel()
    with theirs:
        socket.send_fds(theirs, [b"x"], [theirs.fileno()])
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(NOT_UNDERSTOOD):
            ours.receive()
        assert set(os.listdir("/proc/self/fd")) == before
        ours.close()


@pytest.mark.parametrize("text", ["x" * 9000, "\u6f22" * 9000, '"\\\0' * 3000, "\udc80" * 900])
def test_a_text_is_shortened_to_what_a_payload_has_room_for(text):
    short = shortened(text, 1000)
    assert text.startswith(short)
    assert len(short) >= 100
    ours, theirs = open_channel()
    with theirs:
        ours.send(Kind.ended, payload={"failed": short, "more": [short, short]})
        frame = Channel(theirs.dup())
        assert frame.receive().payload["failed"] == short
        frame.close()
        ours.close()
