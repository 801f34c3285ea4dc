"""`uvicorn_config()`: what it returns, what it warns of, what it refuses."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import warnings

import pytest
import uvicorn

from memguard_native.errors import ConfigError
from memguard_native.recycling.uvicorn import RecyclingWarning, uvicorn_config


async def app(scope, receive, send):
    raise NotImplementedError


@pytest.fixture(autouse=True)
def _no_workers_from_outside(monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecyclingWarning)
        return uvicorn_config(*args, **options)


def test_the_defaults_are_the_originals_limits():
    with pytest.warns(RecyclingWarning):
        config = uvicorn_config(app)
    assert config == {
        "app": app,
        "limit_max_requests": 1000,
        "timeout_keep_alive": 30,
        "host": "127.0.0.1",
        "log_level": "info",
        "access_log": True,
    }


def test_every_key_is_an_argument_of_uvicorn_run():
    config = quietly(app, port=0, uds=None, backlog=10, ws="none")
    inspect.signature(uvicorn.run).bind(**config)
    uvicorn.Config(**config)


def test_options_override_the_defaults():
    config = quietly(app, host="::1", log_level="warning", access_log=False)
    assert (config["host"], config["log_level"], config["access_log"]) == ("::1", "warning", False)


def test_one_process_with_a_limit_is_warned_to_end_for_good(caplog):
    with pytest.warns(RecyclingWarning) as caught, caplog.at_level(logging.WARNING):
        uvicorn_config(app, limit_max_requests=7)
    text = str(caught[0].message)
    assert "exit code 0 after 7 requests" in text
    assert "Restart=always, not on-failure" in text
    assert "limit_max_requests=None" in text
    assert len(caught) == 1
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert text in caplog.text


def test_the_reloader_does_not_start_a_server_again():
    with pytest.warns(RecyclingWarning, match="the reloader does not start it again"):
        uvicorn_config("pkg:app", reload=True)


def test_several_workers_are_warned_to_leave_together():
    with pytest.warns(RecyclingWarning, match=r"each of the 3 workers .*jitter=100 or more"):
        uvicorn_config("pkg:app", workers=3)


def test_workers_from_the_environment_count_as_uvicorn_counts_them(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.warns(RecyclingWarning, match="each of the 2 workers"):
        uvicorn_config("pkg:app")
    with pytest.warns(RecyclingWarning, match="ends this process"):
        uvicorn_config("pkg:app", workers=1)
    monkeypatch.setenv("WEB_CONCURRENCY", "two")
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY must be a whole number"):
        uvicorn_config("pkg:app")


def test_without_a_limit_there_is_nothing_to_warn_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert uvicorn_config(app, None)["limit_max_requests"] is None


@pytest.mark.parametrize("options", [{"workers": 2}, {"reload": True}])
def test_child_processes_need_an_import_string(options):
    with pytest.raises(ConfigError, match="app must be an import string"):
        uvicorn_config(app, **options)


def test_an_unknown_option_is_told_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        uvicorn_config(app, limit_max_request=5)
    assert caught.value.field == "limit_max_request"
    assert "the nearest one is 'limit_max_requests'" in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 7, "", "module", "module:", ":app"])
def test_what_is_no_application_is_refused(wrong):
    with pytest.raises(ConfigError, match="app must"):
        uvicorn_config(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit_max_requests", 0),
        ("limit_max_requests", 1.5),
        ("limit_max_requests", True),
        ("limit_max_requests", "1000"),
        ("timeout_keep_alive", 0),
        ("timeout_keep_alive", -1),
        ("timeout_keep_alive", float("nan")),
        ("timeout_keep_alive", 10**400),
        ("timeout_keep_alive", None),
        ("timeout_keep_alive", "30"),
        ("limit_max_requests_jitter", -1),
        ("port", 65536),
        ("port", "80"),
        ("host", ""),
        ("host", None),
        ("workers", 0),
        ("reload", 1),
        ("access_log", "no"),
        ("log_level", "loud"),
        ("log_level", 1.5),
        ("backlog", 0),
        ("fd", -1),
    ],
)
def test_a_value_that_uvicorn_cannot_use_is_refused_by_name(name, value):
    with pytest.raises(ConfigError) as caught:
        uvicorn_config(app, **{name: value})
    assert (caught.value.field, caught.value.value) == (name, value) or value != value


def test_the_application_is_not_imported():
    quietly("no.such.module:app")


def test_uvicorn_is_imported_only_when_it_is_called():
    code = (
        "import sys, memguard_native.recycling.uvicorn; "
        "sys.exit(any(name.split('.')[0] == 'uvicorn' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
