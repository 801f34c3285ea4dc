"""`memguard serve`: any ASGI application under a supervisor that replaces workers before they fall.

Exit codes: 0 it was told to end; 1 it could not go on; 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from memguard_native.cli.serve_settings import (
    ALL,
    GROUPS,
    PASSWORD,
    PLACE,
    POLICY,
    SERVICE,
    TIMES,
    UVICORN,
    look_at_web_concurrency,
)
from memguard_native.cli.settings import SettingsFormatter, add_settings, read_settings

if TYPE_CHECKING:
    from memguard_native.cli.settings import Given

_INSTALL = "pip install 'memguard-native[serve]'"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "serve",
        help="serve an ASGI application, and replace workers before they fall",
        usage="memguard serve [OPTIONS] APP",
        description="Serve an ASGI application on uvicorn workers, and replace each before it "
        "falls: no request is lost, and connections are handed over.",
        epilog="TIME: 30s, 15m, 12h, 1d, or seconds. SIZE: 512MiB, 2GiB, bytes, or a share of the "
        "memory limit (80%, 0.8), which workers divide among them. none: no limit. Each option has "
        "an environment variable: --max-memory is MEMGUARD_MAX_MEMORY, --no-leak is "
        "MEMGUARD_LEAK=no. A flag wins over it. Exit codes: 0 told to end, 1 could not go on, 2 "
        "wrong usage or configuration.",
        formatter_class=SettingsFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "app", metavar="APP", help="package.module:attribute; the current directory is looked at"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    for title, settings in GROUPS:
        add_settings(parser, title, settings)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, SegmentError, OSError."""
    import os

    _check_app(options.app)
    given = read_settings([*ALL, PASSWORD], options, os.environ)
    look_at_web_concurrency(given, os.environ)
    further = _further(given)
    _check_uvicorn()
    _configure_logging(given.values.get("log_level", "info"))
    from memguard_native.recycling.policy import RecyclePolicy
    from memguard_native.recycling.service import run as serve

    with given.named():
        policy = RecyclePolicy(**given.pick(one for one in POLICY if one.field != "dry_run"))
        return serve(
            options.app,
            policy=policy,
            dry_run=given.values.get("dry_run", False),
            on_ready=lambda url: print(f"Serving {options.app} at {url}", flush=True),
            **given.pick((*SERVICE, *PLACE, *TIMES)),
            **given.pick([*(one for one in UVICORN if one.field != "uvicorn"), PASSWORD]),
            **further,
        )


def _check_app(app: str) -> None:
    from memguard_native.errors import ConfigError

    module, colon, attribute = app.partition(":")
    if not (module and colon and attribute):
        allowed = "must have the form package.module:attribute, such as shop.web:app"
        raise ConfigError("APP", app, allowed)


def _further(given: Given) -> dict[str, Any]:
    """Of --uvicorn."""
    from memguard_native.errors import ConfigError

    flags = {one.field: one.flag for one in ALL}
    further = dict(given.values.get("uvicorn", []))
    for name, value in further.items():
        if name in flags:
            allowed = f"must be given by {flags[name]} instead"
            raise ConfigError(given.origins["uvicorn"], f"{name}={value}", allowed)
        given.origins[name] = f"{given.origins['uvicorn']} {name}"
    return further


def _check_uvicorn() -> None:
    import importlib.util

    from memguard_native.errors import ConfigError

    if importlib.util.find_spec("uvicorn") is None:
        raise ConfigError("uvicorn", None, f"must be installed: {_INSTALL}")


def _configure_logging(level: str) -> None:
    import logging
    import sys

    from memguard_native.recycling.logs import FORMAT

    known = "debug" if level == "trace" else level  # which only uvicorn has
    logging.basicConfig(level=known.upper(), format=FORMAT, stream=sys.stderr)
