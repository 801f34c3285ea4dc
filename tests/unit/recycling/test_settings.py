"""What the supervisor tells the processes that it starts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from memguard_native.errors import ConfigError
from memguard_native.recycling.policy import RecyclePolicy
from memguard_native.recycling.settings import MOST_PROCESSES, ServiceSettings, WorkerPlace

POLICY = RecyclePolicy(max_memory="1GiB", max_lifetime=60.0, max_group_memory=None).resolved(
    workers=2, limit_bytes=None, cgroup_limit_bytes=None
)


def test_settings_arrive_as_they_were_sent():
    sent = ServiceSettings(
        app="shop.web:app",
        factory=True,
        preload="shop.web:load",
        warm_up="/search?q=ü",
        policy=POLICY,
        kill_timeout=1.5,
        drain_timeout=2.5,
        timeout_keep_alive=3.5,
        minute_s=0.5,
        namespace="shop",
        supervisor=123,
        uvicorn_options={"host": "::1", "port": 0, "headers": [["a", "b"]], "ssl_certfile": None},
    )
    assert ServiceSettings.from_file(sent.to_file()) == sent


def test_settings_with_defaults_arrive_as_they_were_sent():
    sent = ServiceSettings(app="shop.web:app", policy=POLICY)
    assert ServiceSettings.from_file(sent.to_file()) == sent


def test_settings_that_are_read_from_the_start_may_be_read_by_many():
    sent = ServiceSettings(app="shop.web:app", policy=POLICY)
    file = sent.to_file()
    copies = [os.dup(file) for _ in range(3)]  # they share one position
    os.close(file)
    assert [ServiceSettings.from_file(copy) for copy in copies] == [sent] * 3


def test_the_file_is_closed_when_it_was_read():
    file = ServiceSettings(app="shop.web:app", policy=POLICY).to_file()
    ServiceSettings.from_file(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_the_file_is_not_inherited_by_other_processes():
    file = ServiceSettings(app="shop.web:app", policy=POLICY).to_file()
    try:
        assert not os.get_inheritable(file)
    finally:
        os.close(file)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServiceSettings(app="a:b", policy=POLICY).app = "c:d"  # type: ignore[misc]


@pytest.mark.parametrize("value", [object, {1, 2}, Path("/x"), b"bytes", {"a": {"b": object}}])
def test_an_option_that_is_no_plain_value_is_refused_by_name(value):
    settings = ServiceSettings(
        app="a:b", policy=POLICY, uvicorn_options={"port": 1, "log_config": value}
    )
    with pytest.raises(ConfigError) as caught:
        settings.check()
    assert str(caught.value) == (
        "log_config must be a plain value (text, number, list, dict): it goes to other processes, "
        f"got {value!r}"
    )


def test_plain_options_are_taken():
    options = {"port": 1, "headers": [("a", "b")], "log_config": {"version": 1}, "loop": None}
    ServiceSettings(app="a:b", policy=POLICY, uvicorn_options=options).check()


def test_supervisor_and_workers_have_a_slot_each():
    assert MOST_PROCESSES == 31


def test_a_place_may_have_no_predecessor():
    assert WorkerPlace(number=0, generation=1).predecessor is None
