from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from memguard_native.memory.alert import Alert

ALERT = Alert(
    rule="window",
    severity="notice",
    sample=11,
    at=1.5,
    signal="private",
    window_minutes=11.0,
    rate_mb_per_hour=12.5,
    threshold_mb_per_hour=10.0,
)


def test_to_dict_names_its_schema_and_every_field():
    assert ALERT.to_dict() == {
        "schema": 1,
        "rule": "window",
        "severity": "notice",
        "sample": 11,
        "at": 1.5,
        "signal": "private",
        "window_minutes": 11.0,
        "rate_mb_per_hour": 12.5,
        "threshold_mb_per_hour": 10.0,
    }


def test_to_dict_is_ready_for_json():
    assert json.loads(json.dumps(ALERT.to_dict())) == ALERT.to_dict()


def test_an_alert_can_be_pickled():
    assert pickle.loads(pickle.dumps(ALERT)) == ALERT


def test_an_alert_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALERT.severity = "critical"
