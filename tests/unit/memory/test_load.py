"""What a program tells of its load, from any thread and across a fork."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from memguard_native import ConfigError, _core
from memguard_native.memory.load import Load, RequestsByMinute, mb_per_1000_requests


def test_nothing_told_is_not_known():
    load = Load()
    assert load.value is None
    assert load.requests.value is None
    assert load.idle_seconds() is None


def test_load_is_what_was_set_and_added():
    load = Load()
    load.add(2)
    load.set(5)
    load.add(-1.5)
    assert load.value == 3.5


def test_a_block_is_in_flight_until_it_ends_however_it_ends():
    load = Load()
    with load.track(), load.track(4.0):
        assert load.value == 5.0
    with pytest.raises(ZeroDivisionError), load.track(3):
        _ = 1 / 0
    assert load.value == 0.0


def test_a_block_can_have_more_in_flight_as_it_goes_on():
    load = Load()
    with load.track() as tracked:
        tracked.add(10)
        tracked.add(5)
        assert load.value == 16.0
    assert load.value == 0.0


def test_what_was_ended_by_hand_does_not_end_again():
    load = Load()
    with load.track(3) as tracked:
        tracked.end()
        tracked.end()
        assert load.value == 0.0
    assert load.value == 0.0


def test_a_request_that_begins_is_counted_and_in_flight_until_it_ends():
    load = Load()
    first, second = load.requests.begin(), load.requests.begin()
    assert (load.requests.value, load.value) == (2, 2.0)
    load.requests.end(first)
    load.requests.end(second)
    assert (load.requests.value, load.value) == (2, 0.0)


@pytest.mark.parametrize("gauge", [None, 1.0, object()])
def test_requests_are_counted_into_a_gauge_only(gauge):
    with pytest.raises(TypeError, match="gauge must be a LoadGauge"):
        _core.RequestCounter(gauge)


@pytest.mark.parametrize("begun", ["x", -1, None])
def test_the_number_of_a_request_is_what_its_beginning_gave(begun):
    with pytest.raises((TypeError, OverflowError)):
        Load().requests.end(begun)


def test_the_end_of_a_request_ends_idleness():
    load = Load()
    load._changed_at = 0.0
    load.requests.end(load.requests.begin())
    assert load.idle_seconds() < 60.0, "the end of the request counts, on the same clock"


def test_requests_are_counted_apart_from_the_load():
    load = Load()
    load.requests.add()
    load.requests.add(41)
    assert load.requests.value == 42
    assert load.value is None


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), "3", None])
def test_an_amount_that_is_no_number_is_refused_and_changes_nothing(amount):
    load = Load()
    load.set(1)
    for tell in (load.set, load.add):
        with pytest.raises(ConfigError, match="amount must be a finite number"):
            tell(amount)
    with pytest.raises(ConfigError), load.track(amount):
        raise AssertionError("the block must not begin")
    assert load.value == 1.0


@pytest.mark.parametrize("count", [-1, 1.5, "3", None])
def test_requests_are_counted_in_whole_numbers_that_grow(count):
    with pytest.raises(ConfigError, match="count must be an int >= 0"):
        Load().requests.add(count)


def test_no_addition_of_many_threads_is_lost():
    load = Load()

    def work():
        for _ in range(2000):
            load.requests.add()
            with load.track():
                load.requests.end(load.requests.begin())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load.requests.value == 16000
    assert load.value == 0.0


def test_idle_is_how_long_nothing_has_been_in_flight(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    load = Load()
    load.add(0.1)
    load.add(0.2)
    now[0] += 5
    assert load.idle_seconds() == 0.0
    load.add(-0.3)  # 5e-17 is left
    now[0] += 7
    assert load.idle_seconds() == 7.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_what_a_parent_has_in_flight_is_not_its_childs():
    load, silent = Load(), Load()
    load.requests.add(7)
    with load.track(3):
        begun = load.requests.begin()
        child = os.fork()
        if child == 0:
            load.requests.end(begun)
            seen = (load.value, load.requests.value, silent.value)
            os._exit(0 if seen == (0.0, None, None) else 1)
        assert os.waitpid(child, 0)[1] == 0
        load.requests.end(begun)
    assert (load.value, load.requests.value) == (0.0, 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_was_forked_within_a_block_takes_nothing_off_at_its_end():
    load = Load()
    child = -1
    try:
        with load.track(3) as tracked:
            child = os.fork()
            tracked.add(2)
    finally:
        if child == 0:
            os._exit(0 if load.value == 0.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert load.value == 0.0


def test_requests_of_a_window_are_what_the_counter_grew_by():
    counts = RequestsByMinute()
    assert counts.within(10) is None
    for minute in range(100):
        counts.add(minute, 1000 + 50 * minute)
        counts.add(minute, 10**9)  # the first of a minute counts
    assert counts.within(30) == 1500
    assert counts.within(99) == 4950
    assert counts.within(100) is None, "they were not counted for so long"


def test_a_minute_without_samples_does_not_hide_requests():
    counts = RequestsByMinute()
    for minute in (0, 1, 2, 50, 60):
        counts.add(minute, minute)
    assert counts.within(30) == 58


def test_requests_that_are_not_counted_are_not_known():
    counts = RequestsByMinute()
    counts.add(0, None)
    counts.add(30, None)
    assert counts.within(10) is None


@pytest.mark.parametrize(
    ("rate", "minutes", "requests", "mb"),
    [(12.0, 60, 6000, 2.0), (12.0, 180, 6000, 6.0), (12.0, 60, 0, None), (12.0, 60, None, None)],
)
def test_a_thousand_requests_leave_their_share_of_the_growth(rate, minutes, requests, mb):
    assert mb_per_1000_requests(rate, minutes, requests) == mb


def test_the_module_needs_no_numpy():
    code = "import sys, memguard_native.memory.load; sys.exit('numpy' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
