"""Which inputs are computed together next: the order of the queue, without threads or time.

A `Job` holds the inputs of one request; `BatchQueue` admits jobs as a whole and hands out batches.
Everything is counted in padded tokens: an input costs the length of its bucket, for that is what is
computed. Rules:

- A batch is within its budget of padded tokens, and an input is never split.
- Jobs take turns in leading a batch. The leader's longest waiting input sets the bucket; the batch
  is filled with inputs of that bucket and then of the next smaller one, one per job and round. So
  one client's 2048 inputs delay another client's single input by one batch. Still shorter inputs
  wait for a batch of their own, since padding them four times and more would cost more than the
  wait.
- A job's inputs are taken longest first, which puts equal lengths side by side.
- The queue is bounded by tokens. A job is charged at most a quarter of the bound: a few bulk
  requests are fed to the batches piecemeal, beside small ones, instead of being refused.

Not thread-safe: its owner holds a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from memguard_native.embedding.backends import TokenIds

MIN_BUCKET = 16
_MIN_QUEUED_BATCHES = 4


def make_buckets(max_length: int) -> tuple[int, ...]:
    """Return the lengths that batches are counted at: doubling from 16, the last one is
    `max_length`.
    """
    buckets = []
    length = MIN_BUCKET
    while length < max_length:
        buckets.append(length)
        length *= 2
    return (*buckets, max_length)


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds `length` tokens."""
    return next(bucket for bucket in buckets if length <= bucket)


class Job:
    """The inputs of one request that are still to be computed."""

    __slots__ = ("_buckets", "_waiting", "rows", "tokens", "waiting_tokens")

    def __init__(self, rows: Sequence[TokenIds], buckets: Sequence[int]) -> None:
        self.rows = rows
        self._buckets = [bucket_of(len(row), buckets) for row in rows]
        self._waiting = deque(sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True))
        self.tokens = self.waiting_tokens = sum(self._buckets)

    @property
    def next_bucket(self) -> int | None:
        """The bucket of the input that is next; None if all were taken."""
        return self._buckets[self._waiting[0]] if self._waiting else None

    def take(self) -> int:
        """Take the next input out; return its position in the request."""
        index = self._waiting.popleft()
        self.waiting_tokens -= self._buckets[index]
        return index

    def drop(self) -> None:
        """Take all inputs out: nobody waits for them any more."""
        self._waiting.clear()
        self.waiting_tokens = 0


JobT = TypeVar("JobT", bound=Job)


@dataclass(frozen=True)
class Batch(Generic[JobT]):
    """Inputs to compute together: (job, position in its request), padded to `bucket`."""

    items: list[tuple[JobT, int]]
    bucket: int

    @property
    def tokens(self) -> int:
        """Padded tokens."""
        return len(self.items) * self.bucket


class BatchQueue(Generic[JobT]):
    """Jobs in the order of their turns. `max_batch_tokens` must hold the largest bucket."""

    def __init__(
        self, buckets: Sequence[int], max_batch_tokens: int, max_queue_tokens: int
    ) -> None:
        self._buckets = tuple(buckets)
        self._max_batch_tokens = max_batch_tokens
        self.max_queue_tokens = max(max_queue_tokens, _MIN_QUEUED_BATCHES * max_batch_tokens)
        self._max_charge = self.max_queue_tokens // 4
        self._jobs: deque[JobT] = deque()

    @property
    def tokens(self) -> int:
        """What the waiting jobs are charged; never above `max_queue_tokens`."""
        return sum(self._charge(job) for job in self._jobs)

    def _charge(self, job: JobT) -> int:
        return min(job.waiting_tokens, self._max_charge)

    def add(self, job: JobT) -> bool:
        """Admit `job` as a whole, or return False: there is no room now."""
        if self.tokens + self._charge(job) > self.max_queue_tokens:
            return False
        self._jobs.append(job)
        return True

    def remove(self, job: JobT) -> None:
        """Forget what is left of `job`; harmless if nothing is."""
        job.drop()
        if job in self._jobs:
            self._jobs.remove(job)

    def clear(self) -> list[JobT]:
        """Take all jobs out and return them."""
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def take(self) -> Batch[JobT] | None:
        """Return the next batch, or None if nothing waits."""
        bucket = self._jobs[0].next_bucket if self._jobs else None
        if bucket is None:
            return None
        room = self._max_batch_tokens // bucket
        items: list[tuple[JobT, int]] = []
        position = self._buckets.index(bucket)
        for wanted in self._buckets[max(0, position - 1) : position + 1][::-1]:
            self._fill(items, room, wanted)
        self._jobs.rotate(-1)
        self._jobs = deque(job for job in self._jobs if job.next_bucket is not None)
        return Batch(items, bucket)

    def _fill(self, items: list[tuple[JobT, int]], room: int, wanted: int) -> None:
        """Add inputs of bucket `wanted`, one per job and round, until the batch is full."""
        progress = True
        while progress and len(items) < room:
            progress = False
            for job in self._jobs:
                if job.next_bucket == wanted and len(items) < room:
                    items.append((job, job.take()))
                    progress = True
