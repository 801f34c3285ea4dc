"""The inference thread: phases, batches, failures, and what the event loop hears of them.

A `GatedBackend` stops in the middle of a batch until the test lets it go, so nothing depends on
timing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from memguard_native.breaker.breaker import CircuitBreaker, State
from memguard_native.embedding.config import EmbeddingConfig
from memguard_native.embedding.engine import Engine, Phase, Ticket
from memguard_native.embedding.errors import ApiError, ModelError

from .fakes import DIMENSIONS, POISON, FakeBackend, GatedBackend, fail_on_poison, loaded
from .tiny import MAX_LENGTH


class Harness:
    """An engine, and the phases that it went through."""

    def __init__(self, load, config=None, breaker=None) -> None:
        self.phases: list[Phase] = []
        self.changed = asyncio.Event()
        self.breaker = breaker or CircuitBreaker("embed:test")
        self.engine = Engine(config or EmbeddingConfig(), load, self.breaker, self._on_change)

    def _on_change(self, phase: Phase) -> None:
        self.phases.append(phase)
        self.changed.set()

    async def reach(self, phase: Phase) -> None:
        async with asyncio.timeout(20):
            while self.engine.phase is not phase:
                self.changed.clear()
                await self.changed.wait()

    def submit(self, *rows: list[int]) -> Ticket:
        arrays = [np.array(row, np.int32) for row in rows]
        ticket = Ticket(arrays, self.engine.buckets, DIMENSIONS, 0.0)
        self.engine.submit(ticket)
        return ticket


@asynccontextmanager
async def running(load, config=None, breaker=None) -> AsyncIterator[Harness]:
    harness = Harness(load, config, breaker)
    harness.engine.start()
    try:
        await harness.reach(Phase.ready)
        yield harness
    finally:
        await harness.engine.close(20)


async def wait(ticket: Ticket) -> np.ndarray:
    async with asyncio.timeout(20):
        await ticket.future
    return ticket.vectors


def in_thread(semaphore: threading.Semaphore):
    return asyncio.to_thread(semaphore.acquire, timeout=20)


def test_the_phases_come_in_order(tokenizer):
    async def scenario():
        async with running(loaded(FakeBackend(), tokenizer)) as harness:
            assert harness.engine.is_alive
        assert not harness.engine.is_alive
        return harness.phases

    expected = [Phase.warming, Phase.ready, Phase.draining, Phase.stopped]
    assert asyncio.run(scenario()) == expected


def test_vectors_arrive_in_the_order_of_the_inputs(tokenizer):
    async def scenario():
        async with running(loaded(FakeBackend(), tokenizer)) as harness:
            return await wait(harness.submit([2, 3], [2, 12, 13, 3], [2, 12, 3]))

    assert asyncio.run(scenario())[:, :2].tolist() == [[5, 2], [30, 4], [17, 3]]


def test_batches_form_by_themselves_while_one_is_computed(tokenizer):
    async def scenario():
        backend = GatedBackend()
        async with running(loaded(backend, tokenizer)) as harness:
            backend.closed = True
            tickets = [harness.submit([2, 3])]
            await in_thread(backend.entered)
            tickets += [harness.submit([2, 12, 3]) for _ in range(3)]
            backend.closed = False
            backend.gate.release()
            for ticket in tickets:
                await wait(ticket)
            return backend.batches[-2:]

    assert asyncio.run(scenario()) == [(1, 16), (3, 16)]


def test_a_cancelled_request_is_skipped_at_the_next_batch(tokenizer):
    async def scenario():
        backend = GatedBackend()
        async with running(loaded(backend, tokenizer)) as harness:
            backend.closed = True
            first = harness.submit([2, 3])
            await in_thread(backend.entered)
            gone, kept = harness.submit(*[[2, 12, 3]] * 50), harness.submit([2, 3])
            harness.engine.cancel(gone)
            backend.closed = False
            backend.gate.release()
            await wait(first)
            await wait(kept)
            return backend.batches[-1], gone.future.done()

    assert asyncio.run(scenario()) == ((1, 16), False)


def test_a_poison_input_fails_its_own_request_only(tokenizer, caplog):
    async def scenario():
        backend = FakeBackend(fail_on_poison)
        async with running(loaded(backend, tokenizer)) as harness:
            bad, good = harness.submit([2, POISON, 3], [2, 3]), harness.submit([2, 12, 3])
            with pytest.raises(ApiError) as caught:
                await wait(bad)
            assert (await wait(good))[0, 0] == 17
            assert harness.breaker.state is State.closed
            return caught.value

    error = asyncio.run(scenario())
    assert (error.status, error.code) == (500, "backend_error")
    assert "the backend failed on one input" in caplog.text


def test_what_is_left_of_a_failed_request_is_not_computed(tokenizer):
    async def scenario():
        backend = FakeBackend(fail_on_poison)
        async with running(loaded(backend, tokenizer)) as harness:
            before = len(backend.batches)
            with pytest.raises(ApiError):
                await wait(harness.submit([2, POISON, 3], *[[2, 3]] * 400))
            await wait(harness.submit([2, 12, 3]))
            return len(backend.batches) - before

    # The first batch of four, the search in it, and the second request: not the other hundred.
    assert asyncio.run(scenario()) < 20


def test_a_sick_backend_opens_the_breaker_and_is_then_left_alone(tokenizer):
    async def scenario():
        backend = FakeBackend()
        breaker = CircuitBreaker("b", failure_threshold=2)
        async with running(loaded(backend, tokenizer), breaker=breaker) as harness:
            backend.fail = lambda rows: 1 / 0
            statuses = []
            for _ in range(4):
                with pytest.raises(ApiError) as caught:
                    await wait(harness.submit([2, 3]))
                statuses.append((caught.value.status, caught.value.code))
            return statuses, len(backend.batches)

    statuses, _ = asyncio.run(scenario())
    assert statuses == [(500, "backend_error")] * 2 + [(503, "unavailable")] * 2


def test_each_rejected_request_is_told_its_own_wait(tokenizer):
    async def scenario():
        backend = GatedBackend()
        async with running(loaded(backend, tokenizer)) as harness:
            backend.closed = True
            first = harness.submit([2, 3])
            await in_thread(backend.entered)
            waiting = [harness.submit([2, 12, 3]) for _ in range(20)]
            harness.breaker.trip()
            backend.closed = False
            backend.gate.release()
            await wait(first)
            errors = await asyncio.gather(*(wait(t) for t in waiting), return_exceptions=True)
            return [error.retry_after_ms for error in errors if isinstance(error, ApiError)]

    waits = asyncio.run(scenario())
    assert len(waits) == 20
    assert len(set(waits)) > 1
    assert all(25 <= ms <= 2000 for ms in waits)


def test_a_full_queue_refuses_with_the_time_to_wait(tokenizer):
    async def scenario():
        backend = GatedBackend()
        config = EmbeddingConfig(max_queue_tokens=1)  # raised to four batches of 64 tokens
        async with running(loaded(backend, tokenizer), config) as harness:
            backend.closed = True
            tickets = [harness.submit([2, 3])]
            await in_thread(backend.entered)
            tickets += [harness.submit(*[[2, 3]] * 4) for _ in range(4)]
            with pytest.raises(ApiError) as caught:
                harness.submit([2, 3])
            backend.closed = False
            backend.gate.release()
            for ticket in tickets:
                await wait(ticket)
            return caught.value

    error = asyncio.run(scenario())
    assert (error.status, error.code) == (429, "overloaded")
    assert 25 <= error.retry_after_ms <= 2000


def test_closing_computes_what_waits(tokenizer):
    async def scenario():
        backend = GatedBackend()
        harness = Harness(loaded(backend, tokenizer))
        harness.engine.start()
        await harness.reach(Phase.ready)
        backend.closed = True
        tickets = [harness.submit([2, 3])]
        await in_thread(backend.entered)
        tickets.append(harness.submit([2, 12, 3]))
        closing = asyncio.create_task(harness.engine.close(20))
        await harness.reach(Phase.draining)
        backend.closed = False
        backend.gate.release()
        await closing
        return [(await wait(ticket))[0, 0] for ticket in tickets]

    assert asyncio.run(scenario()) == [5, 17]


def test_a_server_that_is_closed_while_loading_never_becomes_ready(tokenizer):
    async def scenario():
        release = threading.Event()

        def load():
            assert release.wait(20)
            return loaded(FakeBackend(), tokenizer)()

        harness = Harness(load)
        harness.engine.start()
        closing = asyncio.create_task(harness.engine.close(20))
        await harness.reach(Phase.draining)
        release.set()
        await closing
        await asyncio.sleep(0)  # lets what the thread has sent arrive
        return harness.phases

    assert asyncio.run(scenario()) == [Phase.draining, Phase.stopped]


def test_what_is_not_computed_within_the_drain_time_is_told_so(tokenizer):
    async def scenario():
        backend = GatedBackend()
        harness = Harness(loaded(backend, tokenizer))
        harness.engine.start()
        await harness.reach(Phase.ready)
        backend.closed = True
        stuck = harness.submit([2, 3])
        await in_thread(backend.entered)
        waiting = harness.submit([2, 12, 3])
        await harness.engine.close(0.01)
        answers = await asyncio.gather(wait(stuck), wait(waiting), return_exceptions=True)
        backend.gate.release()
        return answers

    answers = asyncio.run(scenario())
    assert [str(error) for error in answers] == ["The server is shutting down."] * 2
    assert {error.status for error in answers} == {503}


def test_a_model_that_cannot_be_loaded_is_a_failure_that_tells_why(tokenizer):
    def load():
        raise ModelError("model", "is damaged")

    async def scenario():
        harness = Harness(load)
        harness.engine.start()
        await harness.reach(Phase.failed)
        await harness.engine.close(20)
        return harness

    harness = asyncio.run(scenario())
    assert isinstance(harness.engine.failure, ModelError)
    assert harness.phases == [Phase.failed]
    assert not harness.engine.is_alive


def test_a_backend_that_fails_its_warm_up_is_a_failure(tokenizer):
    async def scenario():
        harness = Harness(loaded(FakeBackend(lambda rows: 1 / 0), tokenizer))
        harness.engine.start()
        await harness.reach(Phase.failed)
        await harness.engine.close(20)
        return harness.engine.failure

    assert "ZeroDivisionError" in str(asyncio.run(scenario()))


def test_a_backend_that_breaks_its_contract_fails_all_that_waits(tokenizer):
    async def scenario():
        backend = GatedBackend()
        harness = Harness(loaded(backend, tokenizer))
        harness.engine.start()
        await harness.reach(Phase.ready)
        backend.closed = True
        computing = harness.submit([2, 3])
        await in_thread(backend.entered)
        waiting = harness.submit([2, 12, 3])
        backend.closed = False
        computing.vectors = np.empty((1, 3), np.float32)  # vectors of another length than promised
        backend.gate.release()
        await harness.reach(Phase.failed)
        answers = await asyncio.gather(wait(computing), wait(waiting), return_exceptions=True)
        await harness.engine.close(20)
        return [str(answer) for answer in answers], harness.engine.failure

    answers, failure = asyncio.run(scenario())
    assert answers == ["The server has failed."] * 2
    assert isinstance(failure, ValueError)


def test_a_batch_that_is_stuck_shows_in_the_signs_of_life(tokenizer):
    async def scenario():
        backend = GatedBackend()
        config = EmbeddingConfig(batch_timeout=1e-9)
        async with running(loaded(backend, tokenizer), config) as harness:
            assert harness.engine.is_alive
            backend.closed = True
            ticket = harness.submit([2, 3])
            await in_thread(backend.entered)
            alive_while_stuck = harness.engine.is_alive
            backend.gate.release()
            with pytest.raises(ApiError):
                await wait(ticket)
            return alive_while_stuck

    assert asyncio.run(scenario()) is False


def test_a_budget_below_the_models_length_is_raised_with_a_warning(tokenizer, caplog):
    async def scenario():
        backend = FakeBackend()
        config = EmbeddingConfig(max_batch_tokens=8)
        async with running(loaded(backend, tokenizer), config) as harness:
            await wait(harness.submit([2] * MAX_LENGTH))
        return backend.prepared

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(scenario()) == MAX_LENGTH
    assert f"raised from 8 to the model's length, {MAX_LENGTH}" in caplog.text
