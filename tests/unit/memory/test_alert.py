from __future__ import annotations

import dataclasses
import json
import math
import pickle

import pytest

from memguard_native.memory.alert import Alert, Forecast

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


FORECAST = Forecast(
    seconds=3600.0,
    earliest_seconds=1800.0,
    latest_seconds=math.inf,
    limit_bytes=2**30,
    limit_source="cgroup",
)


def test_to_dict_names_its_schema_and_every_field():
    found = ALERT.to_dict()
    assert found.pop("schema") == 1
    assert found == {name: getattr(ALERT, name) for name in ALERT.__slots__}


def test_a_forecast_without_an_end_is_null_in_json():
    alert = dataclasses.replace(ALERT, forecast=FORECAST)
    assert alert.to_dict()["forecast"] == {
        "seconds": 3600.0,
        "earliest_seconds": 1800.0,
        "latest_seconds": None,
        "limit_bytes": 2**30,
        "limit_source": "cgroup",
        "inherited": False,
    }


def test_to_dict_is_ready_for_json():
    assert json.loads(json.dumps(ALERT.to_dict())) == ALERT.to_dict()


def test_an_alert_can_be_pickled():
    assert pickle.loads(pickle.dumps(ALERT)) == ALERT


def test_an_alert_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALERT.severity = "critical"
