"""The order of the queue: examples first, then the rules as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.embedding.batching import BatchQueue, Job, bucket_of, make_buckets

BUCKETS = (16, 32, 64)
BUDGET = 64


def job(*lengths: int) -> Job:
    return Job([np.zeros(length, np.int32) for length in lengths], BUCKETS)


def queue(max_queue_tokens: int = 10_000) -> BatchQueue[Job]:
    return BatchQueue(BUCKETS, BUDGET, max_queue_tokens)


def filled(*jobs: Job) -> BatchQueue[Job]:
    made = queue()
    for each in jobs:
        assert made.add(each)
    return made


@pytest.mark.parametrize(
    ("max_length", "buckets"),
    [
        (256, (16, 32, 64, 128, 256)),
        (16, (16,)),
        (10, (10,)),
        (24, (16, 24)),
        (100, (16, 32, 64, 100)),
    ],
)
def test_buckets_double_up_to_the_models_length(max_length, buckets):
    assert make_buckets(max_length) == buckets


@pytest.mark.parametrize(("length", "bucket"), [(1, 16), (16, 16), (17, 32), (64, 64)])
def test_a_row_belongs_to_the_smallest_bucket_that_holds_it(length, bucket):
    assert bucket_of(length, BUCKETS) == bucket


def test_an_empty_queue_has_no_batch():
    assert queue().take() is None


def test_a_batch_is_filled_up_to_its_budget_of_padded_tokens():
    batch = filled(job(*[5] * 10)).take()
    assert (len(batch.items), batch.bucket, batch.tokens) == (4, 16, 64)


def test_a_batch_takes_one_input_per_job_and_round():
    first, second, third = job(*[5] * 9), job(5), job(5, 5)
    batch = filled(first, second, third).take()
    assert batch.items == [(first, 0), (second, 0), (third, 0), (first, 1)]


def test_the_longest_inputs_of_a_job_come_first():
    only = job(5, 40, 20, 60)
    made = filled(only)
    taken = [[i for _, i in made.take().items] for _ in range(3)]
    assert taken == [[3], [1], [2, 0]]


def test_the_next_smaller_bucket_fills_what_is_left():
    long, short = job(20), job(5)
    batch = filled(long, short).take()
    assert batch.items == [(long, 0), (short, 0)]


def test_much_shorter_inputs_wait_for_a_batch_of_their_own():
    budget_of_two = BatchQueue[Job](BUCKETS, 128, 10_000)
    long, short = job(60), job(5)
    assert budget_of_two.add(long)
    assert budget_of_two.add(short)
    assert budget_of_two.take().items == [(long, 0)]
    assert budget_of_two.take().items == [(short, 0)]


def test_a_bulk_job_delays_a_single_input_by_one_batch():
    bulk, single = job(*[5] * 2048), job(60)
    made = filled(bulk, single)
    assert {each for each, _ in made.take().items} == {bulk}
    assert made.take().items == [(single, 0)]


def test_a_full_queue_refuses_a_job_as_a_whole():
    made = queue(max_queue_tokens=256)
    jobs = [job(*[5] * 4) for _ in range(5)]
    assert [made.add(each) for each in jobs] == [True] * 4 + [False]
    assert made.tokens == 256


def test_a_bulk_job_is_charged_a_quarter_of_the_queue():
    made = queue(max_queue_tokens=400)
    assert [made.add(job(*[5] * 2048)) for _ in range(5)] == [True] * 4 + [False]
    assert made.tokens == 400


def test_the_queue_holds_at_least_four_batches():
    assert queue(max_queue_tokens=1).max_queue_tokens == 4 * BUDGET


def test_a_removed_job_is_skipped_and_its_room_is_free():
    gone, kept = job(*[5] * 8), job(5)
    made = filled(gone, kept)
    made.remove(gone)
    assert made.tokens == 16
    assert made.take().items == [(kept, 0)]


def test_removing_a_job_that_is_being_computed_is_harmless():
    only = job(5)
    made = filled(only)
    made.take()
    made.remove(only)
    assert made.tokens == 0


def test_clearing_returns_every_job_that_waits():
    jobs = [job(5), job(60)]
    made = filled(*jobs)
    assert made.clear() == jobs
    assert made.take() is None


JOBS = st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=40), min_size=1, max_size=8)


@given(JOBS)
def test_every_input_is_computed_exactly_once_within_the_budget(lengths):
    jobs = [job(*each) for each in lengths]
    made = filled(*jobs)
    seen = []
    while (batch := made.take()) is not None:
        assert 0 < batch.tokens <= BUDGET
        assert all(len(each.rows[i]) <= batch.bucket for each, i in batch.items)
        seen += batch.items
    expected = [(each, i) for each in jobs for i in range(len(each.rows))]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)
    assert len(set(seen)) == len(seen)
    assert made.tokens == 0


@given(JOBS, st.integers(1, 64))
def test_a_single_input_waits_one_batch_per_job_before_it_at_most(lengths, length):
    made = filled(*(job(*each) for each in lengths))
    single = job(length)
    assert made.add(single)
    for _ in range(len(lengths) + 1):
        if single in {each for each, _ in made.take().items}:
            return
    raise AssertionError("the single input starves")


@given(
    st.lists(
        st.one_of(st.lists(st.integers(1, 64), min_size=1, max_size=30), st.none()), max_size=40
    ),
    st.integers(1, 2000),
)
def test_the_queue_never_exceeds_its_bound_and_drains_to_zero(script, bound):
    made = queue(bound)
    for step in script:
        if step is None:
            made.take()
        else:
            made.add(job(*step))
        assert 0 <= made.tokens <= made.max_queue_tokens
    while made.take() is not None:
        pass
    assert made.tokens == 0
    assert made.add(job(*[64] * 2048)), "an empty queue admits any job"
