from __future__ import annotations

import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.action_policy import ActionPolicy


def test_the_usual_policy_tells_and_changes_nothing():
    policy = ActionPolicy()
    assert ActionPolicy.named("log") == policy
    assert (policy.log, policy.callback, policy.advise) == (True, True, True)
    assert (policy.collect, policy.trim, policy.recycle) == (False, False, False)
    assert not policy.empty_gpu_cache


def test_auto_does_everything():
    policy = ActionPolicy.named("auto")
    assert policy.collect
    assert policy.trim
    assert policy.empty_gpu_cache
    assert policy.recycle
    assert not policy.dry_run


def test_dry_run_is_auto_without_the_deeds():
    assert ActionPolicy.named("dry-run").dry_run
    assert ActionPolicy.named("dry-run").trim


def test_a_policy_is_given_back_as_it_is():
    policy = ActionPolicy(trim=True)
    assert ActionPolicy.named(policy) is policy


@pytest.mark.parametrize("wrong", ["", "AUTO", "dry_run", None, 1])
def test_an_unknown_name_is_refused(wrong):
    with pytest.raises(ConfigError, match="actions must be one of 'log', 'auto', 'dry-run'"):
        ActionPolicy.named(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log", 1),
        ("dry_run", None),
        ("trim_interval", 59.0),
        ("trim_interval", float("inf")),
        ("trim_worth", -0.1),
        ("trim_worth", 1.1),
        ("idle_gap", -1),
        ("idle_patience", "300"),
        ("recycle_after", True),
        ("recycle_horizon", 1e9),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        ActionPolicy(**{field: value})
    assert caught.value.field == field


def test_it_is_immutable_and_takes_names_only():
    with pytest.raises(AttributeError):
        ActionPolicy().trim = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        ActionPolicy(True)  # type: ignore[misc]
