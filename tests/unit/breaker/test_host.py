"""Scope "host": breakers of one name and namespace are one, its numbers the newest given.

Two objects of this process stand for two processes here: they share nothing but the segment. What
needs real processes is in tests/stress/test_shared_processes.py.
"""

from __future__ import annotations

import copy
import logging
import os
import pickle

import pytest

from memguard_native import (
    BreakerConfig,
    CircuitBreaker,
    CircuitOpenError,
    ConfigError,
    SegmentError,
    SegmentUnavailableError,
    State,
    _core,
)
from memguard_native import segment as segments
from memguard_native.breaker import events, host

from .calls import Boom, admitted, fail_times

with_the_gil = pytest.mark.skipif(
    not _core.BREAKERS_CAN_MOVE, reason="breakers move with the GIL alone"
)


def shared(name="shared", *arguments, **rules):
    return CircuitBreaker(name, *arguments, scope="host", **rules)


def test_breakers_of_one_name_and_namespace_are_one(clock):
    one, other = shared(clock=clock), shared(clock=clock)
    fail_times(one, 3)
    fail_times(other, 2)
    assert one.state is other.state is State.open
    with pytest.raises(CircuitOpenError) as raised:
        other.call(lambda: None)
    assert raised.value.failure_count == 5
    assert raised.value.last_error == ("Boom", "no answer")
    clock.advance(60)
    assert admitted(other)
    assert one.state is State.closed


def test_other_names_and_namespaces_are_others(clock):
    one = shared("a", 1, clock=clock)
    for other in (
        shared("b", 1, clock=clock),
        shared("a", 1, clock=clock, namespace="elsewhere"),
        CircuitBreaker("a", 1, clock=clock),
    ):
        fail_times(one, 1)
        assert other.state is State.closed
        one.reset()


def test_windows_hold_the_calls_of_all(clock):
    rules = {"failure_rate": 0.5, "minimum_calls": 4, "count_window": 10, "clock": clock}
    one, other = shared("w", None, **rules), shared("w", None, **rules)
    assert admitted(one)
    assert admitted(other)
    fail_times(one, 1)
    assert one.state is State.closed
    fail_times(other, 1)
    assert one.state is State.open
    found = one.snapshot()
    assert (found.successes, found.failures, found.window_calls) == (2, 2, 4)


def test_counters_are_those_of_all(clock):
    one, other = shared("c", 1, clock=clock), shared("c", 1, clock=clock)
    fail_times(one, 1)
    assert not admitted(other)
    assert not admitted(one)
    assert one.snapshot().rejections == other.snapshot().rejections == 2


def test_attaching_with_other_numbers_publishes_them_and_says_so(clock, caplog):
    old = shared("r", 5, clock=clock)
    heard = []
    stop = events.subscribe(heard.append)
    with caplog.at_level(logging.INFO):
        new = shared("r", 2, clock=clock, reset_timeout=30.0)
    assert "failure_threshold 5 -> 2" in caplog.text
    assert "reset_timeout 60.0 -> 30.0" in caplog.text
    assert events.flush()
    stop()
    assert [event.reason for event in heard] == ["reconfigured"]
    assert (old.config.failure_threshold, old.config.reset_timeout) == (2, 30.0)
    fail_times(old, 2)
    assert new.state is State.open
    assert new.retry_after == pytest.approx(30.0, abs=0.01)


def test_attaching_with_the_same_numbers_says_nothing(clock, caplog):
    kept = shared("same", clock=clock)
    with caplog.at_level(logging.INFO):
        shared("same", clock=clock)
    assert caplog.records == []
    assert kept.config.failure_threshold == 5


def test_a_failure_is_judged_by_numbers_that_were_published_before_it_ended(clock):
    one, other = shared("f", 5, clock=clock), shared("f", 5, clock=clock)
    one.configure(failure_threshold=1)
    fail_times(other, 1)
    assert one.state is State.open


def test_functions_stay_each_processs_own(clock):
    one = shared("own", 1, clock=clock, ignore=Boom)
    other = shared("own", 1, clock=clock)
    one.configure(reset_timeout=10.0)
    assert other.config.reset_timeout == 10.0
    fail_times(one, 1)
    assert other.state is State.closed
    fail_times(other, 1)
    assert one.state is State.open


def test_new_sizes_of_windows_begin_anew_for_all(clock):
    rules = {"failure_rate": 0.5, "minimum_calls": 2, "clock": clock}
    one, other = shared("z", None, **rules), shared("z", None, **rules)
    fail_times(one, 1)
    one.configure(count_window=10)
    assert other.config.count_window == 10
    assert other.snapshot().window_calls == 0
    fail_times(other, 1)
    assert other.state is State.closed


def test_successes_are_counted_once_whatever_sizes_the_windows_had(clock):
    breaker = shared("sizes", clock=clock, failure_rate=0.5)
    assert admitted(breaker)
    breaker.configure(count_window=10)
    assert admitted(breaker)
    breaker.configure(count_window=100)
    assert breaker.snapshot().successes == 2


def test_shadow_and_auto_work_from_different_processes(clock):
    one = shared("s", 1, clock=clock, enforce=0.5)
    other = shared("s", 1, clock=clock, enforce=0.5)
    one.shadow()
    assert other.state is State.shadow
    other.auto()
    assert one.config.enforce == 0.5


def test_what_is_told_by_hand_is_known_to_all(clock):
    one, other = shared("hand", clock=clock), shared("hand", clock=clock)
    one.force_open(60, reason="vendor maintenance")
    with pytest.raises(CircuitOpenError) as raised:
        other.call(lambda: None)
    assert (raised.value.state, raised.value.detail) == ("forced_open", "vendor maintenance")


def test_texts_that_are_too_long_or_no_text_are_clipped(clock):
    one = shared("long", 1, clock=clock)
    other = shared("long", 1, clock=clock)

    def fail():
        raise type("Ä" * 100, (Exception,), {})("ö" * 1000)

    with pytest.raises(Exception, match="ö"):
        one.call(fail)
    kind, text = other.snapshot().last_error
    assert kind == "Ä" * 32
    assert text == "ö" * 80
    one.force_open(reason="\ud800")
    assert other.snapshot().detail is None


def test_a_breaker_unpickles_to_the_one_of_its_name_and_namespace():
    one = shared("p", 3, namespace="pickled")
    restored = pickle.loads(pickle.dumps(one))
    assert restored is one
    assert copy.deepcopy(one) is one
    assert (restored.scope, restored.config.namespace) == ("host", "pickled")


def test_an_unpickled_breaker_goes_by_the_rules_of_now_and_changes_none():
    pickled = pickle.dumps(shared("q", 3))
    kept = shared("q", 7)
    local = CircuitBreaker("q")
    restored = pickle.loads(pickled)
    assert restored is not local
    assert restored.scope == "host"
    assert restored.config.failure_threshold == kept.config.failure_threshold == 7
    assert pickle.loads(pickled) is restored


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"failure_rate": 0.5, "count_window": 257}, "must be at most 128 / rate in scope 'host'"),
        ({"slow_rate": 1.0, "slow_call_duration": 1, "count_window": 129}, "at most 128 / rate"),
        ({"clock": "boottime"}, "must be 'monotonic' or a ManualClock in scope 'host'"),
        ({"namespace": "a b"}, "namespace must be"),
        ({"namespace": 5}, "namespace must be a text or None"),
    ],
)
def test_what_cannot_be_shared_is_refused(rules, words):
    with pytest.raises(ConfigError, match=words):
        shared("x", **rules)


def test_a_bad_scope_is_refused():
    with pytest.raises(ConfigError, match="scope must be one of 'local', 'host', got 'galaxy'"):
        CircuitBreaker("x", scope="galaxy")


@pytest.mark.parametrize("changes", [{"scope": "local"}, {"namespace": "other"}])
def test_scope_and_namespace_cannot_change(changes):
    with pytest.raises(ConfigError, match="cannot change, it stays"):
        shared("x").configure(**changes)


def test_a_breaker_from_a_config_is_shared_too():
    config = BreakerConfig(name="from config", scope="host", failure_threshold=2)
    assert CircuitBreaker.from_config(config).scope == "host"


def test_a_hostile_hand_in_the_published_rules_changes_none(clock):
    breaker = shared("hostile", 2, clock=clock)
    path = segments.path_of("default")
    published = (2).to_bytes(8, "little") + (60 * 10**9).to_bytes(8, "little")
    content = path.read_bytes()
    at = content.index(published)
    with path.open("r+b") as file:
        for copy_of_rules in (at, content.find(published, at + 8)):
            if copy_of_rules >= 0:
                file.seek(copy_of_rules)
                file.write(b"\xff" * 160)
        file.seek(content.rindex((1).to_bytes(8, "little"), 0, at))
        file.write((3).to_bytes(8, "little"))
    fail_times(breaker, 2)
    assert breaker.config.failure_threshold == 2
    assert breaker.state is State.open
    assert segments.attach().core.header()["repairs"] == 1


# --- by name alone --------------------------------------------------------------------------------


def test_a_breaker_that_others_made_is_attached_to_by_its_name(caplog):
    made = shared("known", 3, failure_rate=0.5, enforce=0.5)
    assert events.flush()  # what the tests before have done is told
    heard = []
    stop = events.subscribe(heard.append)
    with caplog.at_level(logging.INFO):
        attached = CircuitBreaker.attach("known")
        assert events.flush()
    stop()
    assert caplog.records == []
    assert heard == []
    assert attached.config.is_same_as(made.config)
    attached.trip()
    assert made.state is State.open


def test_one_that_is_attached_to_is_never_local(monkeypatch):
    made = shared("locked")
    monkeypatch.setattr(segments, "_LOCK_TIMEOUT", 0.05)
    with segments._locked(made._rules.place.segment.path):
        assert CircuitBreaker.attach("locked").scope == "host"
        segments._attached.clear()  # as in another process, which needs the lock for its slot
        with pytest.raises(SegmentError, match="another process holds its lock"):
            CircuitBreaker.attach("locked")


def test_attaching_by_name_makes_no_rules():
    segment = segments.attach()
    with segment.locked():
        index = segment.core.claim_breaker("claimed, no more")
    with pytest.raises(SegmentError, match="'claimed, no more' has no legal rules"):
        CircuitBreaker.attach("claimed, no more")
    assert segment.core.rules(index) is None


@pytest.fixture
def looks_alone(monkeypatch):
    """The event thread, which an earlier test may have started, does not look as well."""
    monkeypatch.setattr(events._deliverer, "_tasks", [])
    assert events.flush()


@pytest.mark.usefixtures("looks_alone")
@with_the_gil
def test_a_file_that_is_removed_or_replaced_is_attached_to_again(clock, caplog):
    breaker = shared("moving", 1, clock=clock, failure_rate=0.5)

    @breaker
    def call(work):
        return work()

    call(int)
    path = segments.path_of("default")
    os.unlink(path)
    host.look()
    assert "was replaced or removed" in caplog.text
    segments._attached.clear()  # as another process that attaches now
    other = shared("moving", 1, clock=clock, failure_rate=0.5)
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 / 0)
    assert other.state is State.open
    with pytest.raises(CircuitOpenError):
        call(int)
    other.reset()
    assert call(int) == 0
    assert breaker.snapshot().successes == 1


@pytest.mark.usefixtures("looks_alone")
@with_the_gil
def test_with_nowhere_to_go_they_stay_and_it_is_told_once(clock, caplog, monkeypatch):
    breaker = shared("staying", 1, clock=clock)
    other = shared("staying", 1, clock=clock)
    os.unlink(segments.path_of("default"))

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(3):
        host.look()
    assert caplog.text.count("its breakers stay there") == 1
    fail_times(breaker, 1)
    assert other.state is State.open
    assert segments.attach().core.slot is not None


def test_without_the_lock_a_breaker_goes_by_the_rules_of_others(clock, caplog, monkeypatch):
    kept = shared("locked", 3, clock=clock)
    real = segments.Segment.locked
    calls = []

    def locked(segment):
        calls.append(segment)
        if len(calls) == 2:  # the first claims the name
            raise SegmentUnavailableError("path", "another process holds its lock", "wait")
        return real(segment)

    monkeypatch.setattr(segments.Segment, "locked", locked)
    breaker = shared("locked", 9, clock=clock)
    assert (breaker.scope, breaker.config.failure_threshold) == ("host", 3)
    assert kept.config.failure_threshold == 3
    assert "goes by the rules of other processes" in caplog.text


def test_published_numbers_that_no_config_allows_leave_the_config_as_it_is(clock, monkeypatch):
    one, other = shared("odd", clock=clock), shared("odd", clock=clock)
    one.configure(reset_timeout=30.0)

    def refuse(_config, **_changes):
        raise ConfigError("reset_timeout", 30.0, "is odd")

    monkeypatch.setattr(BreakerConfig, "replace", refuse)
    assert other.state is State.closed
    assert other.config.reset_timeout == 60.0


def test_without_a_gil_breakers_stay_and_it_is_told_once(clock, caplog, monkeypatch):
    monkeypatch.setattr(_core, "BREAKERS_CAN_MOVE", False)
    breaker, other = shared("no move", 1, clock=clock), shared("no move", 1, clock=clock)
    os.unlink(segments.path_of("default"))
    host.look()
    host.look()
    assert caplog.text.count("restart the processes that share it") == 1
    fail_times(breaker, 1)
    assert other.state is State.open


@with_the_gil
def test_a_call_that_began_in_the_file_of_before_moves_nothing(clock):
    breaker = shared("moved during a call", 1, clock=clock)
    breaker.trip()
    clock.advance(60)
    attempt = breaker.attempt()
    os.unlink(segments.path_of("default"))
    host.look()
    assert breaker.state is State.closed
    attempt.failure()
    assert breaker.state is State.closed
    assert breaker.snapshot().stale == 1
