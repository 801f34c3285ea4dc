"""Who is to blame for a failing batch: the backend, which the breaker counts, or one input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native._core import ManualClock
from memguard_native.breaker.breaker import CircuitBreaker, State
from memguard_native.embedding.errors import BackendError, BatchTimeoutError
from memguard_native.embedding.guard import GuardedBackend
from memguard_native.errors import CircuitOpenError

from .fakes import POISON, FakeBackend, fail_on_poison

PROBE = np.array([2, 1, 3], np.int32)


def rows_of(*kinds: bool) -> list[np.ndarray]:
    """A row per kind: poison where it is True."""
    return [
        np.array([2, POISON if kind else 12, 20 + i, 3], np.int32) for i, kind in enumerate(kinds)
    ]


def guarded(backend, breaker=None, clock=lambda: 0.0) -> GuardedBackend:
    return GuardedBackend(backend, breaker or CircuitBreaker("b"), PROBE, 30.0, clock)


def always(error: Exception):
    def fail(rows):
        raise error

    return fail


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_each_poison_input_fails_alone_and_all_others_get_their_vectors(kinds):
    rows = rows_of(*kinds)
    results = guarded(FakeBackend(fail_on_poison)).encode(rows, 16)
    assert [isinstance(result, BackendError) for result in results] == kinds
    for row, result, poison in zip(rows, results, kinds, strict=True):
        if not poison:
            assert result[0] == row.sum()


def test_poison_never_opens_the_breaker():
    breaker = CircuitBreaker("b", failure_threshold=1)
    backend = guarded(FakeBackend(fail_on_poison), breaker)
    for _ in range(20):
        backend.encode(rows_of(True, False), 16)
    assert breaker.state is State.closed
    assert breaker.failure_count == 0


def test_a_batch_of_one_poison_input_is_not_computed_twice():
    fake = FakeBackend(fail_on_poison)
    guarded(fake).encode(rows_of(True), 16)
    assert fake.batches == [(1, 16), (1, len(PROBE))]


def test_a_sick_backend_fails_the_batch_after_one_look_at_the_warm_up_text():
    fake = FakeBackend(always(ValueError("sick")))
    with pytest.raises(BackendError, match=r"the backend failed \(ValueError: sick\)"):
        guarded(fake).encode(rows_of(False, False), 16)
    assert fake.batches == [(2, 16), (1, len(PROBE))]


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError(), OSError()])
def test_every_exception_of_the_backend_counts(error):
    breaker = CircuitBreaker("b", failure_threshold=3)
    backend = guarded(FakeBackend(always(error)), breaker)
    for _ in range(3):
        with pytest.raises(BackendError):
            backend.encode(rows_of(False), 16)
    assert breaker.state is State.open
    with pytest.raises(CircuitOpenError):
        backend.encode(rows_of(False), 16)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_a_failure(value):
    class Sick(FakeBackend):
        def encode(self, rows, bucket):
            return np.full_like(super().encode(rows, bucket), value)

    with pytest.raises(BackendError, match="not finite"):
        guarded(Sick()).encode(rows_of(False), 16)


def test_one_row_that_is_not_finite_fails_alone():
    class OneSick(FakeBackend):
        def encode(self, rows, bucket):
            vectors = super().encode(rows, bucket)
            vectors[[POISON in row for row in rows]] = np.nan
            return vectors

    results = guarded(OneSick()).encode(rows_of(False, True), 16)
    assert [isinstance(result, BackendError) for result in results] == [False, True]


def test_a_batch_that_takes_too_long_counts_and_is_not_repeated():
    clock = ManualClock()
    fake = FakeBackend(lambda rows: clock.advance(30.5))
    breaker = CircuitBreaker("b", failure_threshold=1)
    with pytest.raises(BatchTimeoutError, match=r"took 30\.5 s"):
        guarded(fake, breaker, clock.now).encode(rows_of(False, False), 16)
    assert breaker.state is State.open
    assert len(fake.batches) == 1


def test_the_breaker_closes_on_the_first_batch_that_succeeds_after_the_timeout():
    clock = ManualClock()
    breaker = CircuitBreaker("b", failure_threshold=1, reset_timeout=60.0, clock=clock)
    fake = FakeBackend(always(ValueError()))
    backend = guarded(fake, breaker)
    with pytest.raises(BackendError):
        backend.encode(rows_of(False), 16)
    fake.fail = None
    clock.advance(60.0)
    assert len(backend.encode(rows_of(False), 16)) == 1
    assert breaker.state is State.closed


def test_warming_up_computes_a_full_batch_of_each_bucket():
    clock = ManualClock()
    fake = FakeBackend(lambda rows: clock.advance(0.5))
    tokens_per_second = guarded(fake, clock=clock.now).warm_up((16, 32, 64), 64)
    assert fake.batches == [(4, 16), (2, 32), (1, 64)]
    assert tokens_per_second == pytest.approx(3 * 64 / 1.5)


def test_a_backend_that_cannot_even_warm_up_is_an_error():
    with pytest.raises(BackendError):
        guarded(FakeBackend(always(ValueError()))).warm_up((16,), 64)
