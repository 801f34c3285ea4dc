"""A breaker inside and outside of a retry: the examples, and each composition counted exactly."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stamina
import tenacity

from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native._core import ManualClock

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 60.0

STORY = """\
inside, giving up
  request -> no route to host
  request -> no route to host
  request -> no route to host
  = CircuitOpenError
inside, waiting
  request -> no route to host
  request -> no route to host
  request -> no route to host
  rejected, waiting 0.3 s
  request -> found
  = found
outside, call 1
  request -> no route to host
  request -> no route to host
  = ConnectionError
outside, call 2
  request -> no route to host
  request -> no route to host
  = ConnectionError
outside, call 3
  = CircuitOpenError
"""


@pytest.mark.parametrize("name", ["retry_tenacity.py", "retry_stamina.py"])
def test_the_example_tells_its_story(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, STORY), done.stderr


# --- compositions: both libraries, sync and async -------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Both libraries sleep by these two functions: here, sleeping moves the clock."""
    clock = ManualClock(start=1000.0)

    async def sleep(seconds):
        clock.advance(seconds)

    monkeypatch.setattr(time, "sleep", clock.advance)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock


@pytest.fixture(autouse=True)
def silence():
    hooks = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(hooks)


@pytest.fixture
def breaker(clock):
    return CircuitBreaker("search", 3, 60.0, clock=clock)


def tenacity_retry(attempts, *, waiting=False):
    def wait(state):
        error = state.outcome.exception()
        return error.retry_after if isinstance(error, CircuitOpenError) else 0

    worth_it = (ConnectionError, CircuitOpenError) if waiting else ConnectionError
    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(worth_it),
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        reraise=True,
    )


def stamina_retry(attempts, *, waiting=False):
    def wait_or_retry(error):
        if isinstance(error, CircuitOpenError):
            return error.retry_after
        return isinstance(error, ConnectionError)

    on = wait_or_retry if waiting else ConnectionError
    return stamina.retry(on=on, attempts=attempts, wait_initial=0, wait_jitter=0)


class Upstream:
    """Fails so many times, then answers; counts the requests that reach it."""

    def __init__(self, failures):
        self.failures = failures
        self.requests = 0

    def request(self):
        self.requests += 1
        if self.requests <= self.failures:
            raise ConnectionError("no route to host")
        return "found"

    def function(self, is_async):
        if not is_async:
            return self.request

        async def request():
            return self.request()

        return request


def answer(function):
    result = function()
    return asyncio.run(_await(result)) if inspect.isawaitable(result) else result


async def _await(awaitable):
    return await awaitable


retries = pytest.mark.parametrize("retry", [tenacity_retry, stamina_retry])
forms = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@retries
@forms
def test_inside_each_try_counts_and_the_rejection_ends_the_loop(breaker, retry, is_async):
    upstream = Upstream(failures=99)
    search = retry(10)(breaker(upstream.function(is_async)))
    with pytest.raises(CircuitOpenError):
        answer(search)
    assert (upstream.requests, breaker.state) == (3, State.open)
    with pytest.raises(CircuitOpenError):
        answer(search)
    assert upstream.requests == 3


@retries
@forms
def test_inside_a_success_before_the_threshold_starts_the_count_again(breaker, retry, is_async):
    upstream = Upstream(failures=2)
    assert answer(retry(10)(breaker(upstream.function(is_async)))) == "found"
    assert (upstream.requests, breaker.failure_count, breaker.state) == (3, 0, State.closed)


@retries
@forms
@pytest.mark.parametrize(("failures", "waits"), [(3, 1), (4, 2), (5, 3)])
def test_inside_a_loop_that_waits_sends_one_probe_a_wait(
    breaker, clock, retry, is_async, failures, waits
):
    upstream = Upstream(failures)
    search = retry(20, waiting=True)(breaker(upstream.function(is_async)))
    start = clock.now()
    assert answer(search) == "found"
    assert (upstream.requests, breaker.state) == (failures + 1, State.closed)
    assert clock.now() - start == pytest.approx(waits * 60.0)


@retries
@forms
def test_inside_rejections_use_up_tries(breaker, retry, is_async):
    upstream = Upstream(failures=99)
    # 3 requests, then: rejected, probe, rejected, probe, rejected.
    search = retry(8, waiting=True)(breaker(upstream.function(is_async)))
    with pytest.raises(CircuitOpenError):
        answer(search)
    assert upstream.requests == 5


@retries
@forms
def test_outside_a_whole_loop_is_one_failure_and_none_starts_while_open(breaker, retry, is_async):
    upstream = Upstream(failures=99)
    search = breaker(retry(4)(upstream.function(is_async)))
    for loop in (1, 2, 3):
        with pytest.raises(ConnectionError):
            answer(search)
        assert (upstream.requests, breaker.failure_count) == (4 * loop, loop)
    with pytest.raises(CircuitOpenError) as caught:
        answer(search)
    assert upstream.requests == 12
    assert caught.value.last_error == ("ConnectionError", "no route to host")


@retries
@forms
def test_outside_a_loop_that_ends_well_is_a_success(breaker, retry, is_async):
    upstream = Upstream(failures=3)
    assert answer(breaker(retry(4)(upstream.function(is_async)))) == "found"
    assert (upstream.requests, breaker.failure_count) == (4, 0)


@retries
@forms
def test_outside_the_probe_is_a_whole_loop(breaker, clock, retry, is_async):
    upstream = Upstream(failures=99)
    search = breaker(retry(4)(upstream.function(is_async)))
    breaker.trip()
    clock.advance(60.0)
    with pytest.raises(ConnectionError):
        answer(search)
    assert (upstream.requests, breaker.state) == (4, State.open)


# --- what the document says of tenacity -----------------------------------------------------------


def test_without_reraise_the_breaker_outside_sees_a_retry_error(breaker):
    search = breaker(tenacity.retry(stop=tenacity.stop_after_attempt(2))(Upstream(99).request))
    for _ in range(3):
        with pytest.raises(tenacity.RetryError):
            search()
    with pytest.raises(CircuitOpenError) as caught:
        search()
    kind, _ = caught.value.last_error
    assert kind == "RetryError"


def test_the_default_of_tenacity_retries_rejections(breaker):
    upstream = Upstream(failures=99)
    search = tenacity.retry(stop=tenacity.stop_after_attempt(10))(breaker(upstream.request))
    with pytest.raises(tenacity.RetryError):
        search()
    assert (upstream.requests, search.statistics["attempt_number"]) == (3, 10)


def test_retry_if_not_exception_type_retries_even_an_interrupt(breaker):
    tries = []

    def interrupted():
        tries.append(1)
        raise KeyboardInterrupt

    rule = tenacity.retry_if_not_exception_type(CircuitOpenError)
    search = tenacity.retry(retry=rule, stop=tenacity.stop_after_attempt(4), reraise=True)
    with pytest.raises(KeyboardInterrupt):
        search(breaker(interrupted))()
    assert (len(tries), breaker.failure_count) == (4, 0)
