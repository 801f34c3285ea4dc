"""The adapter behaves in public as circuitbreaker does: one program, run over both."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from pathlib import Path
from types import ModuleType

import circuitbreaker
import pytest

ADAPTER = Path(__file__).parents[2] / "examples" / "circuitbreaker_adapter.py"
# What newer Pythons say about circuitbreaker is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction':DeprecationWarning")


def load_adapter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("circuitbreaker_adapter", ADAPTER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tell(package: ModuleType, story) -> list[str]:
    """What `story(package, say)` says."""
    said: list[str] = []
    story(package, lambda *words: said.append(" ".join(map(str, words))))
    return said


def name_of(call, *args):
    try:
        return call(*args)
    except Exception as error:
        # Ours is CircuitOpenError under their name.
        return {"CircuitOpenError": "CircuitBreakerError"}.get(
            type(error).__name__, type(error).__name__
        )


def opens_and_closes(package, say):
    answers = [OSError(), OSError(), OSError(), "well"]

    @package.circuit(failure_threshold=2, recovery_timeout=0.2, name="story")
    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    breaker = package.CircuitBreakerMonitor.get("story")
    say(breaker, breaker.name, breaker.state, breaker.opened, breaker.closed)
    for _ in range(3):
        say(name_of(ask), breaker.state, breaker.failure_count)
    say(type(breaker.last_failure).__name__, breaker.open_remaining)
    say(package.CircuitBreakerMonitor.all_closed())
    time.sleep(0.21)
    say(breaker.state)
    say(name_of(ask), breaker.state, breaker.failure_count)
    time.sleep(0.21)
    say(name_of(ask), breaker.state, breaker.failure_count, breaker.last_failure)
    say(package.CircuitBreakerMonitor.all_closed())


def knows_what_is_expected(package, say):
    for expected in (OSError, (OSError, KeyError), lambda kind, error: kind is OSError):
        breaker = package.CircuitBreaker(2, expected_exception=expected, name="expected")
        ask = breaker(fail_with)
        say(name_of(ask, OSError()), breaker.failure_count)
        say(name_of(ask, ValueError()), breaker.failure_count)
        say(name_of(ask, OSError()), name_of(ask, OSError()), breaker.state)
        breaker.reset()
        say(breaker.state, breaker.failure_count)


def fail_with(error):
    raise error


def falls_back_in_every_form(package, say):
    async def fallback(error):
        return "cached"

    def values(error):
        yield "cached"

    @package.circuit(failure_threshold=1, name="async", fallback_function=fallback)
    async def ask(error):
        raise error

    @package.circuit(failure_threshold=1, name="generator", fallback_function=values)
    def generate(error):
        yield 1
        raise error

    for _ in range(2):
        say(name_of(lambda: asyncio.run(ask(OSError()))))
        say(name_of(lambda: list(generate(OSError()))))


def names_what_it_decorates(package, say):
    @package.circuit
    def bare():
        """A docstring."""

    class Stubborn(package.CircuitBreaker):
        FAILURE_THRESHOLD = 1
        EXPECTED_EXCEPTION = KeyError

    ask = package.circuit(cls=Stubborn, name="stubborn")(fail_with)
    say(bare.__name__, bare.__doc__, bare())
    say(name_of(ask, OSError()), name_of(ask, KeyError()), name_of(ask, KeyError()))
    say(package.CircuitBreakerMonitor.get("stubborn").state)
    say(package.CircuitBreaker())


@pytest.mark.parametrize(
    "story",
    [opens_and_closes, knows_what_is_expected, falls_back_in_every_form, names_what_it_decorates],
)
def test_the_adapter_tells_the_same_story(story, monkeypatch):
    monkeypatch.setattr(circuitbreaker.CircuitBreakerMonitor, "circuit_breakers", {})
    theirs = tell(circuitbreaker, story)
    assert len(theirs) >= 4
    assert tell(load_adapter(), story) == theirs


def test_it_is_where_the_document_says():
    assert ADAPTER.name in (ADAPTER.parents[1] / "docs" / "migrating.md").read_text()
