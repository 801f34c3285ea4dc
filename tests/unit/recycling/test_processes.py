"""Processes as the supervisor sees them."""

from __future__ import annotations

import socket

from memguard_native.recycling.messages import open_channel
from memguard_native.recycling.processes import ZygoteProcess
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
