"""When a worker is replaced: what a user may say, and what it means in bytes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from memguard_native.errors import ConfigError
from memguard_native.recycling.policy import RecyclePolicy, ResolvedPolicy
from memguard_native.recycling.reasons import MEMORY_REASONS, Reason

MIB, GIB = 2**20, 2**30
MEMORY = ("max_memory", "max_group_memory", "hard_memory")


def resolved(*, workers=2, limit_bytes=4 * GIB, cgroup_limit_bytes=None, **fields):
    return RecyclePolicy(**fields).resolved(
        workers=workers, limit_bytes=limit_bytes, cgroup_limit_bytes=cgroup_limit_bytes
    )


def refusal(**fields) -> str:
    with pytest.raises(ConfigError) as caught:
        RecyclePolicy(**fields)
    return str(caught.value)


def test_the_defaults_are_those_of_the_design():
    assert dataclasses.asdict(RecyclePolicy()) == {
        "max_requests": 1000,
        "jitter": 0.1,
        "max_inputs": None,
        "max_tokens": None,
        "max_lifetime": None,
        "max_memory": None,
        "max_group_memory": "90%",
        "hard_memory": None,
        "on_leak": True,
        "forecast_horizon": 3600.0,
        "confirm_samples": 3,
        "hysteresis": 0.9,
        "sample_interval": 10.0,
        "trim_first": True,
        "max_concurrent": 1,
        "min_interval": 1.0,
        "min_lifetime": 5.0,
        "max_memory_recycles_per_hour": 12,
        "dry_run": False,
    }


def test_a_policy_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RecyclePolicy().max_requests = 5  # type: ignore[misc]


def test_reasons_are_the_words_that_people_read():
    words = "requests inputs tokens lifetime memory group ceiling leak forecast manual backend"
    assert [str(reason) for reason in Reason] == [*words.split(), "hang", "crash"]


def test_five_reasons_are_about_memory():
    assert sorted(MEMORY_REASONS) == ["ceiling", "forecast", "group", "leak", "memory"]


# --- what is refused ------------------------------------------------------------------------------

COUNT = "must be a whole number >= 1"
SECONDS = "must be a number of seconds > 0"
DAY = "must be seconds from 0 to a day"
FLAG = "must be True or False"


@pytest.mark.parametrize(
    ("field", "values", "allowed"),
    [
        ("max_requests", (0, -1, 1.5, True, "10"), f"{COUNT} or None"),
        ("max_inputs", (0, 2.0, False), f"{COUNT} or None"),
        ("max_tokens", (0, "many"), f"{COUNT} or None"),
        ("jitter", (-0.1, 10.1, None, float("nan"), True), "must be a number from 0 to 10"),
        ("max_lifetime", (0, -1.0, float("inf"), "12h", True), f"{SECONDS} or None"),
        ("forecast_horizon", (0, float("nan"), "1h"), f"{SECONDS} or None"),
        ("on_leak", (None, 1, "yes"), FLAG),
        ("trim_first", (None, 0), FLAG),
        ("dry_run", (None, "no"), FLAG),
        ("confirm_samples", (0, None, 2.0, True), COUNT),
        ("max_concurrent", (0, None), COUNT),
        ("max_memory_recycles_per_hour", (0, None), COUNT),
        ("hysteresis", (0.0, 1.01, None, True), "must be a share from 0.01 to 1"),
        ("sample_interval", (0, -1, None, float("inf")), SECONDS),
        ("min_interval", (-1, 86401, None), DAY),
        ("min_lifetime", (-0.1, float("nan"), "5"), DAY),
    ],
)
def test_a_value_out_of_its_range_is_refused_at_once_by_name_and_value(field, values, allowed):
    for value in values:
        assert refusal(**{field: value}) == f"{field} {allowed}, got {value!r}"


@pytest.mark.parametrize("field", MEMORY)
@pytest.mark.parametrize("value", [0, -5, True, 0.0, 1.5, float("nan"), "0%", "101%", [1]])
def test_memory_that_is_no_amount_is_refused_as_it_was_written(field, value):
    allowed = 'must be bytes, "512MiB", "80%" or a share such as 0.8, or None'
    assert refusal(**{field: value}) == f"{field} {allowed}, got {value!r}"


@pytest.mark.parametrize("field", MEMORY)
@pytest.mark.parametrize("text", ["", "lots", "-5%", "80 percent", "1e3", "٨٠%"])
def test_text_that_is_no_size_is_refused_with_an_example_of_one(field, text):
    assert refusal(**{field: text}) == (
        f"{field} must be a size > 0 such as 2GiB, 512M or 1073741824 "
        f"(units are powers of 1024), got {text!r}"
    )


@pytest.mark.parametrize(
    ("soft", "hard"), [("512MiB", "256MiB"), (10, 10), ("80%", 0.8), (0.5, "40%")]
)
def test_a_ceiling_that_is_not_above_max_memory_is_refused_at_once(soft, hard):
    assert refusal(max_memory=soft, hard_memory=hard) == (
        f"hard_memory must be above max_memory, which is {soft!r}, got {hard!r}"
    )


@pytest.mark.parametrize("fields", [{"hard_memory": "1GiB"}, {"max_memory": "1GiB"}])
def test_one_of_max_memory_and_ceiling_may_be_left_out(fields):
    RecyclePolicy(**fields)


@pytest.mark.parametrize("field", ["max_requests", "max_inputs", "max_tokens", "max_lifetime"])
def test_none_is_no_limit(field):
    assert getattr(resolved(**{field: None}), field) is None


# --- in bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "amount"),
    [(123456, 123456), ("512MiB", 512 * MIB), (" 2 g ", 2 * GIB), (None, None)],
)
@pytest.mark.parametrize("field", MEMORY)
def test_a_size_is_taken_as_it_is_however_many_workers_there_are(field, value, amount):
    assert getattr(resolved(workers=7, limit_bytes=None, **{field: value}), field) == amount


@pytest.mark.parametrize("field", ["max_memory", "hard_memory"])
@pytest.mark.parametrize("value", ["80%", " 80.0 % ", 0.8])
def test_a_share_is_of_the_limit_divided_by_the_workers(field, value):
    policy = resolved(workers=4, limit_bytes=1000, **{field: value})
    assert getattr(policy, field) == 200


@pytest.mark.parametrize("value", ["50%", 0.5])
def test_the_share_of_all_together_is_of_the_control_group_and_not_divided(value):
    policy = resolved(workers=4, cgroup_limit_bytes=1000, max_group_memory=value)
    assert policy.max_group_memory == 500


def test_all_together_may_have_nine_tenths_of_the_control_group_by_default():
    assert resolved(cgroup_limit_bytes=1000).max_group_memory == 900


def test_all_together_have_no_limit_by_default_without_a_control_group():
    assert resolved(cgroup_limit_bytes=None).max_group_memory is None


@pytest.mark.parametrize("field", ["max_memory", "hard_memory"])
def test_a_share_of_an_unknown_limit_is_refused_with_a_cure(field):
    with pytest.raises(ConfigError) as caught:
        resolved(limit_bytes=None, cgroup_limit_bytes=None, **{field: "75%"})
    assert str(caught.value) == (
        f'{field} must be a size such as "512MiB", or MEMGUARD_LIMIT be set: no limit is known '
        "that it could be a share of, got '75%'"
    )


def test_a_share_of_a_control_group_without_a_limit_is_refused_with_a_cure():
    with pytest.raises(ConfigError) as caught:
        resolved(limit_bytes=1000, cgroup_limit_bytes=None, max_group_memory="75%")
    assert str(caught.value) == (
        'max_group_memory must be a size such as "8GiB": the control group has no limit that it '
        "could be a share of, got '75%'"
    )


@pytest.mark.parametrize("hard", ["512MiB", "50%", "1.5GiB", "75%"])
def test_a_ceiling_that_turns_out_not_to_be_above_max_memory_is_refused(hard):
    soft = "75%" if hard.endswith("B") else "1536MiB"
    with pytest.raises(ConfigError) as caught:
        resolved(workers=2, limit_bytes=4 * GIB, max_memory=soft, hard_memory=hard)
    assert str(caught.value) == (
        f"hard_memory must be above max_memory, which is 1610612736 bytes a worker, got {hard!r}"
    )


def test_a_ceiling_above_max_memory_is_taken():
    policy = resolved(limit_bytes=4 * GIB, max_memory="40%", hard_memory="1GiB")
    assert (policy.max_memory, policy.hard_memory) == (int(0.8 * GIB), GIB)


def test_what_is_not_memory_stays_as_it_was_said():
    said = RecyclePolicy(max_requests=7, jitter=0.5, max_lifetime=3.5, dry_run=True)
    meant = said.resolved(workers=1, limit_bytes=None, cgroup_limit_bytes=None)
    for field in dataclasses.fields(RecyclePolicy):
        if field.name not in MEMORY:
            assert getattr(meant, field.name) == getattr(said, field.name)


def test_a_resolved_policy_travels_as_json():
    policy = resolved(cgroup_limit_bytes=GIB, max_memory="80%", max_lifetime=1.5, max_tokens=9)
    assert ResolvedPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
