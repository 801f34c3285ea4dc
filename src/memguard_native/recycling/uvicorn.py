"""`uvicorn_config()`: a request limit and a keep-alive time for plain uvicorn, checked and honest.

`uvicorn.run(app, limit_max_requests=1000)` does not recycle anything by itself. With one process
the server runs in the caller; after the limit it returns, and the process ends with exit code 0.
Nothing starts it again, and systemd's `Restart=on-failure` does not fire on exit code 0
(Kludex/uvicorn#426). The reloader of `reload=True` waits for a changed file, not for a dead server,
so it ends there as well. This module returns the keyword arguments all the same, and says so where
it matters.

uvicorn is imported when the function is called; the application is never imported.
"""

from __future__ import annotations

import difflib
import functools
import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from memguard_native.errors import ConfigError, is_finite_number

_LOG = logging.getLogger("memguard_native.recycling")
_LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


class RecyclingWarning(RuntimeWarning):
    """A legal configuration whose effect on the process is probably not what is wanted."""


def uvicorn_config(
    app: object,
    limit_max_requests: int | None = 1000,
    timeout_keep_alive: float = 30,
    **options: object,
) -> dict[str, Any]:
    """Return the keyword arguments of `uvicorn.run`, all checked.

    `app`: an ASGI application, or its import string ("package.module:attribute").
    `limit_max_requests`: requests after which the server stops; None for no limit.
    `timeout_keep_alive`: seconds that an idle connection is kept. uvicorn's default is 5. Proxies
    and connection pools keep theirs longer than that, so with 5 the server is the one that closes,
    which races with the next request; 30 outlives the usual pools. Each kept connection costs
    memory for as long, so do not raise it where clients never come back.
    `options`: any further argument of `uvicorn.run`; `host="127.0.0.1"`, `log_level="info"` and
    `access_log=True` unless given.

    Warns with `RecyclingWarning` (and one log line) where the limit ends the service for good or
    leaves it without workers, and names the cure.

    Raises ConfigError: an option that uvicorn does not have, a value it cannot use, or an
    application object where uvicorn needs an import string. Raises ImportError where uvicorn is not
    installed.
    """
    _check_app(app)
    for name in options:
        if name not in _uvicorn_options():
            raise ConfigError(name, options[name], _unknown_option(name))
    config: dict[str, Any] = {
        "host": "127.0.0.1",
        "log_level": "info",
        "access_log": True,
        **options,
        "limit_max_requests": limit_max_requests,
        "timeout_keep_alive": timeout_keep_alive,
    }
    for name, value in config.items():
        _check_value(name, value)
    workers = _effective_workers(config.get("workers"))
    reload = bool(config.get("reload", False))
    if (workers > 1 or reload) and not isinstance(app, str):
        raise ConfigError(
            "app",
            app,
            "must be an import string such as 'package.module:app' with workers > 1 or reload: "
            "uvicorn's child processes import it",
        )
    if limit_max_requests is not None:
        _warn(_consequence(limit_max_requests, workers, reload))
    return {"app": app, **config}


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of `uvicorn.run` for a worker that a supervisor runs.

    Raises ConfigError: an option that uvicorn does not have, or a value it cannot use.
    """
    for name, value in options.items():
        if name not in _uvicorn_options():
            raise ConfigError(name, value, _unknown_option(name))
        _check_value(name, value)
    return {"log_level": "info", **options}


def _consequence(limit: int, workers: int, reload: bool) -> str:
    if reload:
        return (
            f"uvicorn stops serving after {limit} requests and the reloader does not start it "
            "again before a file changes; leave limit_max_requests=None while developing"
        )
    if workers == 1:
        return (
            f"uvicorn ends this process with exit code 0 after {limit} requests, and nothing "
            "starts it again; run it under a supervisor that restarts on success too (systemd: "
            "Restart=always, not on-failure), or use memguard_native.recycling.run, or pass "
            "limit_max_requests=None"
        )
    return (
        f"each of the {workers} workers leaves after {limit} requests and is replaced only once "
        "it is gone; evenly loaded workers reach the limit together and leave nobody serving, so "
        f"pass limit_max_requests_jitter={max(1, limit // 10)} or more"
    )


def _warn(text: str) -> None:
    _LOG.warning("%s", text)
    warnings.warn(text, RecyclingWarning, stacklevel=3)


@functools.cache
def _uvicorn_options() -> frozenset[str]:
    import inspect

    import uvicorn

    return frozenset(inspect.signature(uvicorn.run).parameters) - {"app"}


def _unknown_option(name: str) -> str:
    nearest = difflib.get_close_matches(name, _uvicorn_options(), n=1, cutoff=0.0)[0]
    return f"is not an option of uvicorn; the nearest one is {nearest!r}"


def _effective_workers(workers: object) -> int:
    if isinstance(workers, int):
        return workers
    given = os.environ.get("WEB_CONCURRENCY", "1")  # uvicorn reads it where workers is None
    if not given.isascii() or not given.isdecimal() or int(given) < 1:
        raise ConfigError("WEB_CONCURRENCY", given, "must be a whole number >= 1")
    return int(given)


def _check_app(app: object) -> None:
    if isinstance(app, str):
        module, colon, attribute = app.partition(":")
        if not (module and colon and attribute):
            raise ConfigError("app", app, "must have the form 'package.module:attribute'")
    elif not callable(app):
        raise ConfigError("app", app, "must be an ASGI application or its import string")


def _whole(low: int, high: float = math.inf) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return check


def _seconds(value: object) -> bool:
    return is_finite_number(value) and value > 0  # type: ignore[operator]


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _log_level(value: object) -> bool:
    return value in _LOG_LEVELS if isinstance(value, str) else _whole(0)(value)


_FLAG = (_flag, "must be True or False")
_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "host": (_text, "must be a host name or address"),
    "port": (_whole(0, 65535), "must be a whole number in 0..65535"),
    "uds": (_optional(_text), "must be a path or None"),
    "fd": (_optional(_whole(0)), "must be a file descriptor >= 0 or None"),
    "workers": (_optional(_whole(1)), "must be a whole number >= 1 or None"),
    "backlog": (_whole(1), "must be a whole number >= 1"),
    "log_level": (_optional(_log_level), f"must be one of {', '.join(_LOG_LEVELS)}, or a number"),
    "limit_max_requests": (_optional(_whole(1)), "must be a whole number >= 1 or None"),
    "limit_max_requests_jitter": (_whole(0), "must be a whole number >= 0"),
    "limit_concurrency": (_optional(_whole(1)), "must be a whole number >= 1 or None"),
    "timeout_keep_alive": (_seconds, "must be a number of seconds > 0"),
    "timeout_graceful_shutdown": (_optional(_whole(0)), "must be whole seconds >= 0 or None"),
    "access_log": _FLAG,
    "proxy_headers": _FLAG,
    "server_header": _FLAG,
    "date_header": _FLAG,
    "reload": _FLAG,
    "factory": _FLAG,
}


def _check_value(name: str, value: object) -> None:
    check, allowed = _CHECKS.get(name, (None, ""))
    if check is not None and not check(value):
        raise ConfigError(name, value, allowed)
