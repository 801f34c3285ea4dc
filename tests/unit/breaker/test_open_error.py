from __future__ import annotations

import contextvars
import copy
import gc
import pickle
import traceback
import weakref

import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, MemguardError

from .calls import Boom, fail_times, succeed


def rejection(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    return caught.value


def test_it_tells_name_state_time_and_cause(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(18.75)
    error = rejection(breaker)
    assert (error.name, error.state, error.reason) == ("search", "open", "open")
    assert error.retry_after == pytest.approx(41.25, abs=0.002)
    assert error.failure_count == 5
    assert error.last_error == ("Boom", "no answer")
    assert isinstance(error, MemguardError)


def test_its_text_says_all_that_in_one_line(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(18.8)
    assert str(rejection(breaker)) == (
        "circuit 'search' is open; next probe in 41.2 s (5 consecutive failures, last: Boom)"
    )


def test_its_text_while_a_probe_runs(breaker, clock):
    fail_times(breaker, 5)
    clock.advance(60)
    texts = []

    def probe():
        error = contextvars.Context().run(rejection, breaker)
        texts.append((str(error), error.reason, error.state))

    breaker.call(probe)
    assert texts == [
        (
            "circuit 'search' is half-open and probing; try again in 60.0 s "
            "(5 consecutive failures, last: Boom)",
            "probing",
            "half_open",
        )
    ]


def test_its_text_after_one_failure_and_after_opening_by_hand(clock):
    single = CircuitBreaker("single", 1, clock=clock)
    fail_times(single, 1)
    assert str(rejection(single)).endswith("(1 consecutive failure, last: Boom)")
    manual = CircuitBreaker("manual", clock=clock)
    manual.trip()
    assert str(rejection(manual)).endswith("(opened by hand)")


def test_retry_after_is_never_zero_or_negative(clock):
    breaker = CircuitBreaker("brief", 1, 0.001, clock=clock)
    fail_times(breaker, 1)
    assert rejection(breaker).retry_after >= 0.001


@pytest.mark.parametrize("through", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_survives_pickle_and_copy_with_all_fields(breaker, through):
    fail_times(breaker, 5)
    error = rejection(breaker)
    twin = through(error)
    if isinstance(twin, bytes):
        twin = pickle.loads(twin)
    fields = ("name", "retry_after", "reason", "state", "failure_count", "opened_at", "last_error")
    assert [getattr(twin, f) for f in fields] == [getattr(error, f) for f in fields]
    assert str(twin) == str(error)


def test_each_rejection_is_a_new_object_with_a_short_traceback(breaker):
    fail_times(breaker, 5)
    errors = [rejection(breaker) for _ in range(1000)]
    assert len({id(error) for error in errors}) == 1000
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in errors) <= 5
    assert all(error.__cause__ is None and error.__context__ is None for error in errors)


def test_it_pins_no_frame_of_the_failing_call(breaker):
    class Large:
        pass

    seen = []

    def fail_with_a_local():
        large = Large()
        seen.append(weakref.ref(large))
        raise Boom(large)

    for _ in range(5):
        with pytest.raises(Boom):
            breaker.call(fail_with_a_local)
    error = rejection(breaker)
    gc.collect()
    assert [reference() for reference in seen] == [None] * 5
    assert error.last_error is not None
    assert error.last_error[0] == "Boom"


def test_it_can_be_mixed_with_an_exception_of_a_client_library(breaker):
    class OpenConnectionError(CircuitOpenError, ConnectionError):
        pass

    fail_times(breaker, 5)
    mixed = OpenConnectionError(*rejection(breaker).args)
    assert (mixed.name, mixed.failure_count) == ("search", 5)
    assert isinstance(mixed, OSError)
    twin = copy.copy(mixed)
    assert twin.args == mixed.args


def test_made_by_hand_it_lacks_what_it_was_not_given():
    error = CircuitOpenError("search")
    assert error.name == "search"
    assert error.retry_after is None
    assert error.last_error is None
    assert str(error) == "search"
    with pytest.raises(TypeError, match="keyword"):
        CircuitOpenError(name="search")


def test_a_failing_str_of_the_exception_does_no_harm(breaker):
    class Rude(Exception):
        def __str__(self):
            raise ValueError("no text for you")

    def raise_rude():
        raise Rude

    for _ in range(5):
        with pytest.raises(Rude):
            breaker.call(raise_rude)
    assert rejection(breaker).last_error == ("Rude", "")


def test_a_long_text_is_cut(breaker):
    def fail_at_length():
        raise Boom("x" * 10_000)

    for _ in range(5):
        with pytest.raises(Boom):
            breaker.call(fail_at_length)
    assert rejection(breaker).last_error == ("Boom", "x" * 160)
