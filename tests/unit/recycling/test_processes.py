"""Processes as the supervisor sees them."""

from __future__ import annotations

import socket

from memguard_native.recycling.messages import open_channel
from memguard_native.recycling.processes import WorkerProcess, ZygoteProcess
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.settings import WorkerPlace


def test_a_zygote_that_is_gone_and_was_not_missed_yet_takes_no_order():
    channel, end = open_channel()
    end.close()
    ours, theirs = socket.socketpair()
    zygote = ZygoteProcess(channel, 1, 0.0)
    assert zygote.fork(WorkerPlace(number=0, generation=1), theirs) is False
    for one in (ours, theirs):
        one.close()
    channel.close()


def test_a_reason_that_has_vanished_does_not_take_another_one_with_it():
    channel, end = open_channel()
    worker = WorkerProcess(WorkerPlace(number=0, generation=1), channel, replaces=None, now=0.0)
    worker.wishes(Reason.memory, 1.0, {})
    worker.wishes(Reason.manual, 2.0, {"by": "hand"})
    worker.no_longer_wishes(Reason.memory)
    assert (worker.wish, worker.wish_at) == (Reason.manual, 2.0)
    worker.no_longer_wishes(Reason.manual)
    assert worker.wish is None
    channel.close()
    end.close()
