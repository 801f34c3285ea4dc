"""`memguard serve`: what its flags and variables become; its help tells the truth."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import logging
import os
import re
from pathlib import Path

import pytest

from memguard_native.cli import serve_settings
from memguard_native.cli.main import main
from memguard_native.cli.settings import PREFIX
from memguard_native.errors import ConfigError
from memguard_native.recycling import service
from memguard_native.recycling.policy import RecyclePolicy

PAGE = Path(__file__).parents[3] / "docs/command-line.md"


@pytest.fixture(autouse=True)
def _untouched(monkeypatch):
    """No variable of who runs the tests, and the log as it was."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        if name not in ("MEMGUARD_DIR", "MEMGUARD_SOAK"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)


class Recorder:
    """Stands for `run()`: keeps what it is called with."""

    def __init__(self):
        self.app = None
        self.arguments = {}
        self.code = 0
        self.error = None

    def __call__(self, app, **arguments):
        self.app, self.arguments = app, arguments
        if self.error is not None:
            raise self.error
        return self.code


@pytest.fixture
def served(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(service, "run", recorder)
    return recorder


def told(capsys, *arguments):
    """The exit code, and the one line that says why."""
    code = main(["serve", *arguments])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error.removeprefix("memguard: ").rstrip()


def test_without_options_all_defaults_are_those_of_run(served):
    assert main(["serve", "shop.web:app"]) == 0
    assert served.app == "shop.web:app"
    assert served.arguments.pop("policy") == RecyclePolicy()
    assert served.arguments.pop("dry_run") is False
    assert callable(served.arguments.pop("on_ready"))
    assert served.arguments == {}


def test_every_option_of_the_service_reaches_it(served):
    arguments = (
        "--workers 4 --factory --start spawn --preload a:b --warm-up /search?q=x --no-overlap "
        "--namespace shop --host ::1 --port 0 --uds /run/shop.sock --fd 7 --ready-timeout 10m "
        "--drain-timeout 20 --kill-timeout 1.5s --hang-timeout 1m --keep-alive 75s "
        "--shutdown-delay 5s --dry-run"
    )
    assert main(["serve", "shop:app", *arguments.split()]) == 0
    del served.arguments["policy"], served.arguments["on_ready"]
    assert served.arguments == {
        "workers": 4,
        "factory": True,
        "start": "spawn",
        "preload": "a:b",
        "warm_up": "/search?q=x",
        "overlap": False,
        "namespace": "shop",
        "host": "::1",
        "port": 0,
        "uds": "/run/shop.sock",
        "fd": 7,
        "ready_timeout": 600.0,
        "drain_timeout": 20.0,
        "kill_timeout": 1.5,
        "hang_timeout": 60.0,
        "timeout_keep_alive": 75.0,
        "shutdown_delay": 5.0,
        "dry_run": True,
    }


def test_every_option_of_the_policy_reaches_it(served):
    arguments = (
        "--max-requests none --max-inputs 100 --max-tokens 9999 --max-lifetime 12h --jitter 0.2 "
        "--max-memory 80% --max-group-memory 0.9 --hard-memory 90% --no-leak "
        "--forecast-horizon 30m --max-concurrent 2"
    )
    assert main(["serve", "shop:app", *arguments.split()]) == 0
    assert served.arguments["policy"] == RecyclePolicy(
        max_requests=None,
        max_inputs=100,
        max_tokens=9999,
        max_lifetime=43200.0,
        jitter=0.2,
        max_memory="80%",
        max_group_memory=0.9,
        hard_memory="90%",
        on_leak=False,
        forecast_horizon=1800.0,
        max_concurrent=2,
    )


def test_options_of_uvicorn_reach_it_under_its_names(served):
    arguments = (
        "--log-level warning --no-access-log --loop asyncio --http h11 --ws none --lifespan on "
        "--root-path /shop --no-proxy-headers --forwarded-allow-ips * --limit-concurrency 100 "
        "--header Server:shop --ssl-certfile c.pem --ssl-keyfile k.pem --ssl-ca-certs ca.pem "
        "--uvicorn ws_max_queue=64 --uvicorn date_header=false --uvicorn interface=asgi3"
    )
    assert main(["serve", "shop:app", *arguments.split()]) == 0
    for name in ("policy", "on_ready", "dry_run"):
        del served.arguments[name]
    assert served.arguments == {
        "log_level": "warning",
        "access_log": False,
        "loop": "asyncio",
        "http": "h11",
        "ws": "none",
        "lifespan": "on",
        "root_path": "/shop",
        "proxy_headers": False,
        "forwarded_allow_ips": "*",
        "limit_concurrency": 100,
        "headers": [("Server", "shop")],
        "ssl_certfile": "c.pem",
        "ssl_keyfile": "k.pem",
        "ssl_ca_certs": "ca.pem",
        "ws_max_queue": 64,
        "date_header": False,
        "interface": "asgi3",
    }


def test_the_environment_gives_what_flags_do_not(served, monkeypatch):
    monkeypatch.setenv("MEMGUARD_MAX_MEMORY", "80%")
    monkeypatch.setenv("MEMGUARD_PORT", "9000")
    monkeypatch.setenv("MEMGUARD_SSL_KEYFILE_PASSWORD", "secret")
    main(["serve", "shop:app", "--port", "9001"])
    assert served.arguments["policy"] == RecyclePolicy(max_memory="80%")
    assert served.arguments["port"] == 9001
    assert served.arguments["ssl_keyfile_password"] == "secret"


@pytest.mark.parametrize(
    ("arguments", "environment", "workers"),
    [
        ([], {"WEB_CONCURRENCY": "3"}, 3),
        ([], {"WEB_CONCURRENCY": "3", "MEMGUARD_WORKERS": "4"}, 4),
        (["--workers", "5"], {"WEB_CONCURRENCY": "3", "MEMGUARD_WORKERS": "4"}, 5),
    ],
)
def test_how_many_workers_is_said_in_three_places(
    served, monkeypatch, arguments, environment, workers
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    main(["serve", "shop:app", *arguments])
    assert served.arguments["workers"] == workers


def test_the_url_is_a_result(served, capsys):
    main(["serve", "shop:app"])
    served.arguments["on_ready"]("http://127.0.0.1:8000")
    assert capsys.readouterr().out == "Serving shop:app at http://127.0.0.1:8000\n"


def test_the_exit_code_is_that_of_the_service(served):
    served.code = 1
    assert main(["serve", "shop:app"]) == 1


@pytest.mark.parametrize("app", ["shop", "shop:", ":app"])
def test_an_application_without_its_name_is_told_how(served, capsys, app):
    allowed = "APP must have the form package.module:attribute, such as shop.web:app"
    assert told(capsys, app) == (2, f"{allowed}, got {app!r}")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--max-lifetime", "soon"], "--max-lifetime must be a duration such as"),
        (["--log-level", "loud"], "--log-level must be one of critical, error,"),
        (["--header", "shop"], "--header must have the form NAME:VALUE, got 'shop'"),
        (["--uvicorn", "shop"], "--uvicorn must have the form NAME=VALUE, such as"),
        (["--uvicorn", "port=1"], "--uvicorn must be given by --port instead, got 'port=1'"),
    ],
)
def test_a_wrong_value_is_one_sentence(served, capsys, arguments, text):
    code, error = told(capsys, "shop:app", *arguments)
    assert code == 2
    assert error.startswith(text)


@pytest.mark.parametrize(
    ("arguments", "variables", "field", "name"),
    [
        (["--workers", "99"], {}, "workers", "--workers"),
        ([], {"WEB_CONCURRENCY": "99"}, "workers", "WEB_CONCURRENCY"),
        ([], {"MEMGUARD_WORKERS": "99"}, "workers", "MEMGUARD_WORKERS"),
        (["--uvicorn", "ws_max_queu=1"], {}, "ws_max_queu", "--uvicorn ws_max_queu"),
        ([], {}, "workers", "workers"),
    ],
)
def test_what_the_service_refuses_names_where_it_is_from(
    served, capsys, monkeypatch, arguments, variables, field, name
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    served.error = ConfigError(field, 99, "must be less")
    assert told(capsys, "shop:app", *arguments) == (2, f"{name} must be less, got 99")


def test_an_option_that_is_none_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "shop:app", "--max-memry=80%"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "unrecognized arguments: --max-memry=80%; the nearest is --max-memory" in error


def test_options_are_not_abbreviated(served):
    with pytest.raises(SystemExit):
        main(["serve", "shop:app", "--max-life", "1h"])


def test_without_uvicorn_it_says_how_to_get_it(served, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name)
    )
    code, error = told(capsys, "shop:app")
    assert code == 2
    assert error.startswith("uvicorn must be installed: pip install 'memguard-native[serve]'")


@pytest.mark.parametrize(
    ("arguments", "level"), [([], logging.INFO), (["--log-level", "trace"], logging.DEBUG)]
)
def test_what_the_supervisor_logs_is_shown(served, monkeypatch, arguments, level):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    main(["serve", "shop:app", *arguments])
    assert len(root.handlers) == 1
    assert root.level == level


# --- its help -------------------------------------------------------------------------------------


def defaults():
    """Of `run`, of the policy and of uvicorn, by field."""
    import uvicorn

    found = {}
    for function in (uvicorn.run, service.run):
        for name, parameter in inspect.signature(function).parameters.items():
            found[name] = parameter.default
    for field in dataclasses.fields(RecyclePolicy):
        found[field.name] = getattr(RecyclePolicy(), field.name)
    # Where the default of the signature is None, and stands for another one.
    return found | {"namespace": "default", "log_level": "info"}


@pytest.mark.parametrize("setting", serve_settings.ALL, ids=lambda one: one.flag)
def test_the_default_that_help_shows_is_the_default(setting):
    if setting.default:
        shown = setting.read(setting.flag, setting.default)
        assert shown == defaults()[setting.field]


@pytest.mark.parametrize("setting", serve_settings.ALL, ids=lambda one: one.flag)
def test_each_option_is_a_line_of_the_help(capsys, setting):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    lines = capsys.readouterr().out.splitlines()
    flag = re.escape(setting.flag).replace(r"\-\-", r"\-\-(\[no\-\])?", 1)
    (line,) = [line for line in lines if re.match(rf"  {flag} ", line)]
    assert setting.help in line
    assert not setting.default or line.endswith(f"[{setting.default}]")


@pytest.mark.parametrize("command", ["serve", "embed", "workers", "recycle"])
def test_the_documented_help_is_the_help(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, _, rest = PAGE.read_text().partition(f"$ memguard {command} --help\n")
    documented = rest.partition("```")[0]
    # What argparse writes itself is broken and named differently by versions of Python.
    assert documented.split() == capsys.readouterr().out.split()


def test_the_documented_error_is_the_error(served, capsys, monkeypatch):
    monkeypatch.setenv("MEMGUARD_MAX_LIFETIME", "half a day")
    _, error = told(capsys, "shop.web:app")
    command = "$ MEMGUARD_MAX_LIFETIME='half a day' memguard serve shop.web:app"
    assert f"{command}\nmemguard: {error}\n" in PAGE.read_text()
