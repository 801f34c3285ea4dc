"""docs/migrating.md: its code prints what it says, and other packages do what it says of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import aiobreaker
import circuitbreaker
import interlock
import pybreaker
import pytest

from memguard_native import CircuitBreaker, CircuitOpenError, State
from memguard_native._core import ManualClock

from . import snippets

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "migrating.md"
TEXT = DOCUMENT.read_text()
BLOCKS = snippets.blocks_of(DOCUMENT)

# What newer Pythons say about the other packages is not ours to mend.
OF_OTHERS = (
    "ignore:datetime.datetime.utcnow:DeprecationWarning",
    "ignore:'asyncio.iscoroutinefunction':DeprecationWarning",
)
pytestmark = [pytest.mark.filterwarnings(warning) for warning in OF_OTHERS]


def down(*_):
    raise ConnectionError("no route to host")


def harmless():
    raise KeyError("harmless")


def fail(call, times=1):
    """Call it; return the names of what it raises."""
    raised = []
    for _ in range(times):
        try:
            call(down)
        except Exception as error:
            raised.append(type(error).__name__)
    return raised


def seconds_standing_still(monkeypatch):
    """Time as circuitbreaker sees it."""
    clock = ManualClock(start=1000.0)
    monkeypatch.setattr(circuitbreaker, "monotonic", clock.now)
    return clock


# --- the document ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_runs_and_prints_what_is_written_below_it(code, printed):
    done = snippets.run(code, *OF_OTHERS)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_each_package_has_its_before_and_after_and_retries_have_three_examples():
    assert len(BLOCKS) == 4 * 2 + 3
    assert all(printed for _, printed in BLOCKS)


def test_the_versions_are_those_that_are_installed():
    told = dict(re.findall(r"(\S+) (\d+\.\d+\.\d+)", TEXT))
    assert told == {name: version(name) for name in told}
    assert set(told) == {"pybreaker", "circuitbreaker", "aiobreaker", "interlock-cb"}


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (DOCUMENT.parent / target).exists(), target
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings


def test_every_argument_of_ours_that_a_table_names_exists():
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    named = re.findall(r"\| `(\w+)=[^|]*\|$", tables, re.MULTILINE)
    assert named
    assert set(named) <= set(CircuitBreaker("names").config.__dataclass_fields__)


# --- pybreaker ------------------------------------------------------------------------------------


def test_pybreaker_replaces_the_error_that_opens_it_and_ours_does_not():
    theirs = pybreaker.CircuitBreaker(fail_max=2)
    assert fail(theirs.call, 2) == ["ConnectionError", "CircuitBreakerError"]
    theirs = pybreaker.CircuitBreaker(fail_max=2, throw_new_error_on_trip=False)
    assert fail(theirs.call, 2) == ["ConnectionError", "ConnectionError"]
    ours = CircuitBreaker("ours", 2)
    assert fail(ours.call, 3) == ["ConnectionError", "ConnectionError", "CircuitOpenError"]


def test_pybreaker_counts_no_failure_of_a_coroutine_function():
    breaker = pybreaker.CircuitBreaker(fail_max=2)

    @breaker
    async def search():
        down()

    for _ in range(3):
        with pytest.raises(ConnectionError):
            asyncio.run(search())
    assert (breaker.fail_counter, breaker.current_state) == (0, "closed")


@pytest.mark.parametrize(
    ("breaker", "runs_beside"),
    [(pybreaker.CircuitBreaker(), False), (CircuitBreaker("beside"), True)],
    ids=["pybreaker", "ours"],
)
def test_pybreaker_runs_one_call_at_a_time_and_ours_any_number(breaker, runs_beside):
    begun = threading.Event()

    def outer():
        thread = threading.Thread(target=breaker.call, args=(begun.set,))
        thread.start()
        return thread, begun.wait(10.0 if runs_beside else 0.05)

    thread, was_beside = breaker.call(outer)
    thread.join()
    assert was_beside is runs_beside


def test_an_excluded_error_closes_pybreaker_and_an_ignored_one_closes_nothing():
    theirs = pybreaker.CircuitBreaker(fail_max=2, exclude=[KeyError])
    theirs.half_open()
    with pytest.raises(KeyError):
        theirs.call(harmless)
    assert theirs.current_state == "closed"

    clock = ManualClock()
    for rule, state in (
        ({"ignore": KeyError}, State.half_open),
        ({"failure_if": lambda error: not isinstance(error, KeyError)}, State.closed),
    ):
        ours = CircuitBreaker("ours", 2, clock=clock, **rule)
        ours.trip()
        clock.advance(60)
        with pytest.raises(KeyError):
            ours.call(harmless)
        assert ours.state is state


def test_pybreaker_counts_interrupts_and_generators_that_are_closed_early():
    def interrupted():
        raise KeyboardInterrupt

    def numbers():
        yield 1
        yield 2

    theirs, ours = pybreaker.CircuitBreaker(), CircuitBreaker("ours")
    for breaker in (theirs, ours):
        with pytest.raises(KeyboardInterrupt):
            breaker.call(interrupted)
        running = breaker(numbers)()
        next(running)
        running.close()
    assert (theirs.fail_counter, ours.failure_count) == (2, 0)


# --- circuitbreaker -------------------------------------------------------------------------------


def test_circuitbreaker_is_closed_by_a_late_success_and_by_an_unexpected_error(monkeypatch):
    seconds_standing_still(monkeypatch)
    theirs = circuitbreaker.CircuitBreaker(
        failure_threshold=2, expected_exception=OSError, name="c"
    )
    with theirs:
        fail(theirs.call, 2)
        assert theirs.state == "open"
    assert theirs.state == "closed"
    fail(theirs.call)
    with pytest.raises(KeyError):
        theirs.call(harmless)
    assert theirs.failure_count == 0

    ours = CircuitBreaker("ours", 2)
    with ours.attempt():
        fail(ours.call, 2)
    assert ours.state is State.open


def test_circuitbreaker_rejects_only_decorated_functions():
    theirs = circuitbreaker.CircuitBreaker(failure_threshold=1, name="c")
    fail(theirs.call)
    with pytest.raises(circuitbreaker.CircuitBreakerError):
        theirs(len)("four")
    assert theirs.call(len, "four") == 4

    ours = CircuitBreaker("ours", 1)
    fail(ours.call)
    for reject in (lambda: ours(len)("four"), lambda: ours.call(len, "four"), ours.__enter__):
        with pytest.raises(CircuitOpenError):
            reject()


def test_a_generator_left_early_is_a_success_to_circuitbreaker_and_neutral_to_us():
    def numbers():
        yield 1
        yield 2

    theirs, ours = circuitbreaker.CircuitBreaker(name="c"), CircuitBreaker("ours")
    for breaker in (theirs, ours):
        fail(breaker.call)
        running = breaker(numbers)()
        next(running)
        running.close()
    assert (theirs.failure_count, ours.failure_count) == (0, 1)


# --- half-open: who gets in, and what a cancelled call does ---------------------------------------


async def ten_at_once(guard):
    """How many of ten calls run; the first of those is then cancelled, and the others end well."""
    running = []

    @guard
    async def search():
        running.append(asyncio.current_task())
        await answered.wait()

    answered = asyncio.Event()
    calls = [asyncio.create_task(search()) for _ in range(10)]
    for _ in range(5):
        await asyncio.sleep(0)
    count = len(running)
    running[0].cancel()
    await asyncio.wait([running[0]])
    return count, calls, answered


def test_circuitbreaker_admits_everybody_after_the_wait_and_is_closed_by_a_cancelled_call(
    monkeypatch,
):
    clock = seconds_standing_still(monkeypatch)
    breaker = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=30, name="c")
    fail(breaker.call)
    clock.advance(31)

    async def story():
        count, calls, answered = await ten_at_once(breaker)
        assert (count, breaker.state) == (10, "closed")
        answered.set()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(story())


def test_aiobreaker_admits_everybody_while_half_open_and_stays_so_if_they_are_cancelled():
    breaker = aiobreaker.CircuitBreaker(fail_max=1)
    breaker.half_open()

    async def story():
        count, calls, _ = await ten_at_once(breaker)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (count, breaker.current_state) == (10, aiobreaker.CircuitBreakerState.HALF_OPEN)

    asyncio.run(story())


def test_ours_admits_one_and_a_cancelled_probe_hands_its_slot_to_the_next():
    clock = ManualClock()
    breaker = CircuitBreaker("ours", 1, clock=clock)
    breaker.trip()
    clock.advance(60)

    async def story():
        count, calls, _ = await ten_at_once(breaker)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        rejected = [error for error in errors if isinstance(error, CircuitOpenError)]
        assert (count, len(rejected)) == (1, 9)
        assert {(error.reason, error.retry_after) for error in rejected} == {("probing", 60.0)}
        assert (breaker.state, breaker.retry_after) == (State.half_open, 0.0)

    asyncio.run(story())


# --- aiobreaker -----------------------------------------------------------------------------------


def test_aiobreaker_replaces_the_error_that_opens_it():
    breaker = aiobreaker.CircuitBreaker(fail_max=2, timeout_duration=timedelta(seconds=60))
    assert fail(breaker.call, 2) == ["ConnectionError", "CircuitBreakerError"]


def test_an_excluded_error_closes_aiobreaker():
    breaker = aiobreaker.CircuitBreaker(exclude=[KeyError])
    breaker.half_open()
    with pytest.raises(KeyError):
        breaker.call(harmless)
    assert breaker.current_state is aiobreaker.CircuitBreakerState.CLOSED


@pytest.mark.parametrize(
    ("zone", "told"), [("UTC0", "60"), ("WEST5", "18060"), ("EAST-9", "None")], ids=str
)
def test_the_reopen_time_of_aiobreaker_is_right_only_where_utc_is_local_time(zone, told):
    code = """
import aiobreaker

breaker = aiobreaker.CircuitBreaker(fail_max=1)
try:
    breaker.call(int, "x")
except aiobreaker.CircuitBreakerError as error:
    print(error.reopen_time and round(error.time_remaining.total_seconds()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        timeout=snippets.TIMEOUT_S,
        check=True,
    )
    assert done.stdout.strip() == told


@pytest.mark.parametrize(
    ("breaker", "failures"),
    [
        (aiobreaker.CircuitBreaker(), lambda breaker: breaker.fail_counter),
        (
            interlock.CircuitBreaker(name="theirs"),
            lambda breaker: breaker.snapshot().failed_calls,
        ),
        (CircuitBreaker("generators"), lambda breaker: breaker.failure_count),
    ],
    ids=["aiobreaker", "interlock", "ours"],
)
def test_only_ours_sees_the_failure_of_an_asynchronous_generator(breaker, failures):
    @breaker
    async def numbers():
        yield 1
        down()

    async def story():
        with contextlib.suppress(ConnectionError):
            async for _ in numbers():
                pass

    asyncio.run(story())
    assert failures(breaker) == (1 if isinstance(breaker, CircuitBreaker) else 0)


# --- interlock ------------------------------------------------------------------------------------


class TheirClock:
    """A clock as interlock wants it."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def their_breaker(clock=None, *, probes=1, **options):
    config = interlock.Config(
        minimum_number_of_calls=2, window_size=2, permitted_calls_in_half_open=probes
    )
    return interlock.CircuitBreaker(name="theirs", config=config, clock=clock, **options)


def test_interlock_closes_by_the_rate_of_its_probes_and_says_open_until_the_next_call():
    clock = TheirClock()
    breaker = their_breaker(clock, probes=3)
    fail(breaker.call, 2)
    clock.now += 60
    assert breaker.state == "open"
    fail(breaker.call)
    assert breaker.call(len, "four") == 4
    assert breaker.state == "half_open"
    assert breaker.call(len, "four") == 4
    assert breaker.state == "closed"


def test_one_failed_probe_opens_ours_again_and_its_state_says_half_open_when_the_wait_is_over():
    clock = ManualClock()
    breaker = CircuitBreaker("ours", 2, success_threshold=3, clock=clock)
    fail(breaker.call, 2)
    clock.advance(60)
    assert breaker.state is State.half_open
    breaker.call(len, "four")
    fail(breaker.call)
    assert breaker.state is State.open


def test_a_hanging_probe_holds_interlock_half_open_and_ours_until_the_probe_timeout():
    clock, our_clock = TheirClock(), ManualClock()
    theirs, ours = their_breaker(clock), CircuitBreaker("ours", 2, clock=our_clock)
    for breaker in (theirs, ours):
        fail(breaker.call, 2)
    clock.now += 60
    our_clock.advance(60)
    with theirs:
        clock.now += 1e6
        with pytest.raises(interlock.CircuitOpenError) as caught:
            theirs.call(len, "four")
        assert caught.value.retry_after is None
    hanging = ours.attempt()
    our_clock.advance(60.1)  # probe_timeout is by default reset_timeout
    assert ours.call(len, "four") == 4
    assert ours.state is State.closed
    hanging.failure()
    assert ours.state is State.closed


def test_an_unreachable_exception_is_neutral_to_interlock_only_while_it_is_half_open():
    clock = TheirClock()
    breaker = their_breaker(clock, probes=2, unreachable_exceptions=(ConnectionError,))
    fail(breaker.call, 2)
    assert breaker.state == "open"
    clock.now += 60
    fail(breaker.call)
    assert breaker.call(len, "four") == 4
    assert breaker.call(len, "four") == 4
    assert breaker.state == "closed"

    ours = CircuitBreaker("ours", 2, ignore=ConnectionError)
    fail(ours.call, 5)
    assert (ours.state, ours.failure_count) == (State.closed, 0)


@pytest.mark.parametrize("kind", [MemoryError, RecursionError])
def test_exhaustion_is_a_failure_to_interlock_and_neutral_to_us(kind):
    def exhausted():
        raise kind

    theirs, ours = their_breaker(), CircuitBreaker("ours", 2)
    for breaker in (theirs, ours):
        for _ in range(2):
            with pytest.raises(kind):
                breaker.call(exhausted)
    assert (theirs.state, ours.state) == ("open", State.closed)


def test_a_forced_interlock_tells_no_time_and_ours_does_and_reset_ends_both():
    theirs, ours = their_breaker(), CircuitBreaker("ours")
    for breaker, error_type in ((theirs, interlock.CircuitOpenError), (ours, CircuitOpenError)):
        breaker.force_open()
        with pytest.raises(error_type) as caught:
            breaker.call(len, "four")
        assert (caught.value.retry_after is None) is (breaker is theirs)
        breaker.reset()
        assert breaker.state == "closed"
