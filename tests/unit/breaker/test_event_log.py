"""The log of transitions: what is told, and how often."""

from __future__ import annotations

import logging
import os

from memguard_native import CircuitBreaker
from memguard_native.breaker import events
from memguard_native.testing import ManualClock


def test_transitions_are_logged_at_most_once_a_second(caplog):
    clock = ManualClock()
    log = events._LogEvents(clock.now)

    def event(to_state, breaker="b"):
        return events.BreakerEvent(
            breaker=breaker,
            from_state="closed",
            to_state=to_state,
            reason="manual",
            generation=1,
            at_ns=0,
            wall_time=0.0,
            pid=os.getpid(),
        )

    with caplog.at_level(logging.INFO, "memguard_native.breaker"):
        log(event("open"))
        log(event("closed"))
        log(event("open"))
        log(event("half_open", "other"))
        clock.advance(1.0)
        log(event("closed"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "circuit 'b': closed -> open (manual)"),
        ("INFO", "circuit 'other': closed -> half_open (manual)"),
        ("INFO", "circuit 'b': closed -> closed (manual), 2 changes before it were not logged"),
    ]


def test_the_log_forgets_breakers_that_come_and_go():
    clock = ManualClock()
    log = events._LogEvents(clock.now)
    for number in range(5000):
        clock.advance(0.01)
        log(
            events.BreakerEvent(
                breaker=f"b{number}",
                from_state="open",
                to_state="half_open",
                reason="timeout",
                generation=1,
                at_ns=0,
                wall_time=0.0,
                pid=os.getpid(),
            )
        )
    assert len(log._last) <= 1001


# --- threads and processes ------------------------------------------------------------------------


def test_an_opening_is_logged_whatever_was_logged_just_before(caplog, clock, any_scope):
    name = f"logged at once {any_scope}"  # the log tells one change a second and name
    breaker = CircuitBreaker(name, clock=clock)
    with caplog.at_level(logging.INFO, "memguard_native.breaker"):
        breaker.configure(failure_threshold=3)
        breaker.trip()
        assert events.flush()
    lines = [one.getMessage() for one in caplog.records if name in one.getMessage()]
    assert len(lines) == 2


def test_a_summary_is_not_logged(caplog, clock):
    with caplog.at_level(logging.DEBUG, "memguard_native.breaker"):
        events.log_event(
            events.BreakerEvent(
                breaker="x",
                from_state="open",
                to_state="open",
                reason="summary",
                generation=1,
                at_ns=0,
                wall_time=0.0,
                pid=os.getpid(),
                rejections=5,
            )
        )
    assert caplog.records == []


def test_the_log_says_why_and_whether_it_is_a_shadow(caplog, clock, any_scope):
    name = f"logged shadow {any_scope}"  # the log tells one change a second and name
    breaker = CircuitBreaker(name, clock=clock, enforce=0.0)
    with caplog.at_level(logging.INFO, "memguard_native.breaker"):
        breaker.trip(reason="bad deploy")
        assert events.flush()
    line = next(one.getMessage() for one in caplog.records if name in one.getMessage())
    assert line.endswith("(manual: bad deploy), in shadow: nothing is rejected")
