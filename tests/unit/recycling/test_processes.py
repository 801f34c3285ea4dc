"""Processes as the supervisor sees them."""

from __future__ import annotations

import os
import socket

from memguard_native.recycling.messages import open_channel
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.processes import Starter, WorkerProcess, ZygoteProcess
from memguard_native.recycling.reasons import Reason
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace


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


def test_a_process_has_its_own_group_before_its_first_instruction():
    """What is sent to the supervisor's group while Python starts is not for it."""
    policy = RecyclePolicy().resolved(workers=1, limit_bytes=2**30, cgroup_limit_bytes=None)
    settings = ServiceSettings(app="no_such_module:app", policy=policy, supervisor=os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        zygote = Starter(settings, listener, None).start_zygote(0.0)
    try:
        assert os.getpgid(zygote.pid) == zygote.pid
    finally:
        zygote.kill()
        os.waitpid(zygote.pid, 0)
        zygote.channel.close()
