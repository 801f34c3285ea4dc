"""Breakers by name, and what pickle and copy make of one."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from memguard_native import CircuitBreaker, ConfigError
from memguard_native.breaker import registry


def test_a_name_means_its_newest_breaker():
    first = CircuitBreaker("registry: twice")
    assert registry.get("registry: twice") is first
    second = CircuitBreaker("registry: twice")
    assert registry.get("registry: twice") is second
    assert registry.get("registry: never made") is None


def test_get_or_create_makes_one_breaker_for_all_threads():
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: registry.get_or_create("registry: threads"), range(64)))
    assert len(made) == 1


def test_get_or_create_passes_the_rules_on():
    made = registry.get_or_create("registry: rules", failure_threshold=2)
    assert made.config.failure_threshold == 2
    assert registry.get_or_create("registry: rules", failure_threshold=3) is made
    with pytest.raises(ConfigError):
        registry.get_or_create("registry: bad", failure_threshold=0)


def test_a_breaker_lives_as_long_as_somebody_uses_it():
    guarded = CircuitBreaker("registry: short")(len)
    gc.collect()
    assert registry.get("registry: short") is guarded.breaker
    del guarded
    gc.collect()
    assert registry.get("registry: short") is None


def test_breakers_are_listed_by_name_and_health_tells_their_states():
    made = [CircuitBreaker(f"registry: list {letter}") for letter in "ba"]
    made[0].trip()
    listed = [b for b in registry.breakers() if b in made]
    assert listed == made[::-1]
    health = registry.health()
    assert health["registry: list b"] == "open"
    assert health["registry: list a"] == "closed"


def test_a_breaker_unpickles_to_the_one_of_its_name():
    breaker = CircuitBreaker("registry: pickled", 2, 5.0, jitter=0.5, ignore=KeyError)
    data = pickle.dumps(breaker)
    assert pickle.loads(data) is breaker
    config = breaker.config
    del breaker
    gc.collect()
    assert pickle.loads(data).config == config


def test_a_copy_of_what_holds_a_breaker_shares_it():
    breaker = CircuitBreaker("registry: copied")
    assert copy.copy(breaker) is breaker
    assert copy.deepcopy({"breaker": breaker})["breaker"] is breaker


def test_a_cycle_through_the_users_functions_is_collected():
    class Client:
        def __init__(self) -> None:
            self.breaker = CircuitBreaker("registry: cycle", failure_if=self.is_failure)

        def is_failure(self, error: BaseException) -> bool:
            return True

    Client()
    gc.collect()
    assert registry.get("registry: cycle") is None
