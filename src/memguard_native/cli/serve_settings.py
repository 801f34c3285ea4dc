"""The settings of `memguard serve`, in the groups and the order of its help.

Defaults are those of `recycling.run`, of `RecyclePolicy` and of uvicorn: here they are only shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memguard_native.cli.settings import (
    Given,
    Setting,
    duration,
    memory,
    number,
    one_of,
    optional,
    text,
    whole,
    yes_or_no,
)

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


def _pair(origin: str, given: str) -> tuple[str, Any]:
    """A further argument of uvicorn.run: the value is JSON if it can be, else text."""
    import json

    from memguard_native.errors import ConfigError

    name, equals, value = given.partition("=")
    if not (equals and name.isidentifier()):
        raise ConfigError(origin, given, "must have the form NAME=VALUE, such as ws_max_queue=64")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _header(origin: str, given: str) -> tuple[str, str]:
    from memguard_native.errors import ConfigError

    name, colon, value = given.partition(":")
    if not (name.strip() and colon):
        raise ConfigError(origin, given, "must have the form NAME:VALUE")
    return name.strip(), value.strip()


SERVICE = (
    Setting("--workers", "workers", whole, "processes that serve; also WEB_CONCURRENCY", "N", "1"),
    Setting("--factory", "factory", yes_or_no, "call APP: it returns the application"),
    Setting(
        "--start", "start", text, "how workers start: zygote (fork), spawn, or auto", "HOW", "auto"
    ),
    Setting("--preload", "preload", text, "function that loads what workers share", "PKG:FUNC"),
    Setting(
        "--warm-up",
        "warm_up",
        text,
        "called, or requested, before a worker is ready",
        "PKG:FUNC|/PATH",
    ),
    Setting(
        "--overlap",
        "overlap",
        yes_or_no,
        "start the new worker before the old one ends",
        None,
        "yes",
    ),
    Setting(
        "--namespace",
        "namespace",
        text,
        "of the shared memory: one for each service",
        "NS",
        "default",
    ),
)
PLACE = (
    Setting("--host", "host", text, "address to listen on", "ADDRESS", "127.0.0.1"),
    Setting("--port", "port", whole, "port to listen on; 0: the system chooses", "N", "8000"),
    Setting("--uds", "uds", text, "unix socket to listen on instead", "PATH"),
    Setting("--fd", "fd", whole, "descriptor that listens already, instead", "N"),
)
POLICY = (
    Setting(
        "--max-requests",
        "max_requests",
        optional(whole),
        "requests that a worker answers",
        "N",
        "1000",
    ),
    Setting(
        "--max-inputs",
        "max_inputs",
        optional(whole),
        "inputs that the application reports",
        "N",
        "none",
    ),
    Setting(
        "--max-tokens",
        "max_tokens",
        optional(whole),
        "tokens that the application reports",
        "N",
        "none",
    ),
    Setting(
        "--max-lifetime", "max_lifetime", optional(duration), "age of a worker", "TIME", "none"
    ),
    Setting(
        "--jitter",
        "jitter",
        number,
        "share by which these limits differ between workers",
        "SHARE",
        "0.1",
    ),
    Setting(
        "--max-memory", "max_memory", optional(memory), "own memory of a worker", "SIZE", "none"
    ),
    Setting(
        "--max-group-memory",
        "max_group_memory",
        optional(memory),
        "of all together, of the control group",
        "SIZE",
        "90%",
    ),
    Setting(
        "--hard-memory",
        "hard_memory",
        optional(memory),
        "a worker above it has 2 s to end",
        "SIZE",
        "none",
    ),
    Setting("--leak", "on_leak", yes_or_no, "when the memory guard has found a leak", None, "yes"),
    Setting(
        "--forecast-horizon",
        "forecast_horizon",
        duration,
        "when the limit is nearer than this",
        "TIME",
        "1h",
    ),
    Setting(
        "--max-concurrent",
        "max_concurrent",
        whole,
        "workers that are replaced at the same time",
        "N",
        "1",
    ),
    Setting("--min-interval", "min_interval", duration, "between two replacements", "TIME", "1s"),
    Setting(
        "--min-lifetime",
        "min_lifetime",
        duration,
        "a worker younger than this stays",
        "TIME",
        "5s",
    ),
    Setting("--dry-run", "dry_run", yes_or_no, "only say which would be replaced", None, "no"),
)
TIMES = (
    Setting(
        "--ready-timeout",
        "ready_timeout",
        duration,
        "from the start of a worker to ready",
        "TIME",
        "5m",
    ),
    Setting(
        "--drain-timeout",
        "drain_timeout",
        duration,
        "to finish what a worker has begun",
        "TIME",
        "30s",
    ),
    Setting(
        "--kill-timeout", "kill_timeout", duration, "from there until it is killed", "TIME", "5s"
    ),
    Setting(
        "--hang-timeout",
        "hang_timeout",
        duration,
        "without a turn of the event loop: killed",
        "TIME",
        "30s",
    ),
    Setting(
        "--keep-alive",
        "timeout_keep_alive",
        duration,
        "that an idle connection is kept",
        "TIME",
        "30s",
    ),
    Setting(
        "--shutdown-delay", "shutdown_delay", duration, "from SIGTERM until the drain", "TIME", "0s"
    ),
)
UVICORN = (
    Setting(
        "--log-level", "log_level", one_of(*_LOG_LEVELS), ", ".join(_LOG_LEVELS), "LEVEL", "info"
    ),
    Setting(
        "--log-config", "log_config", text, "logging configuration (.ini, .json, .yaml)", "FILE"
    ),
    Setting("--access-log", "access_log", yes_or_no, "log each request", None, "yes"),
    Setting("--loop", "loop", text, "event loop: auto, asyncio, uvloop", "KIND", "auto"),
    Setting("--http", "http", text, "HTTP parser: auto, httptools, h11", "KIND", "auto"),
    Setting(
        "--ws", "ws", text, "WebSocket protocol: auto, none, websockets, wsproto", "KIND", "auto"
    ),
    Setting("--lifespan", "lifespan", text, "auto, on, off", "KIND", "auto"),
    Setting(
        "--root-path", "root_path", text, "path below which a proxy shows the application", "PATH"
    ),
    Setting(
        "--proxy-headers",
        "proxy_headers",
        yes_or_no,
        "trust X-Forwarded-For and -Proto",
        None,
        "yes",
    ),
    Setting(
        "--forwarded-allow-ips", "forwarded_allow_ips", text, "from these proxies, or *", "IPS"
    ),
    Setting(
        "--limit-concurrency",
        "limit_concurrency",
        optional(whole),
        "more at once are answered by 503",
        "N",
        "none",
    ),
    Setting(
        "--header",
        "headers",
        _header,
        "added to each answer; repeatable",
        "NAME:VALUE",
        is_list=True,
    ),
    Setting("--ssl-certfile", "ssl_certfile", text, "TLS: the certificate and its chain", "FILE"),
    Setting(
        "--ssl-keyfile",
        "ssl_keyfile",
        text,
        "its key; password: MEMGUARD_SSL_KEYFILE_PASSWORD",
        "FILE",
    ),
    Setting(
        "--ssl-ca-certs", "ssl_ca_certs", text, "who signs the certificates of clients", "FILE"
    ),
    Setting(
        "--uvicorn",
        "uvicorn",
        _pair,
        "any other of uvicorn.run; repeatable",
        "NAME=VALUE",
        is_list=True,
    ),
)
PASSWORD = Setting("--ssl-keyfile-password", "ssl_keyfile_password", text, "of --ssl-keyfile")
"""Never a flag: everybody sees the arguments of a process."""

WORKERS = SERVICE[0]
REPLACEMENT = ("when a worker is replaced", POLICY)
GROUPS = (
    ("the service", SERVICE),
    ("where it listens", PLACE),
    REPLACEMENT,
    ("times", TIMES),
    ("uvicorn", UVICORN),
)
"""As --help shows them."""

ALL = tuple(one for _, settings in GROUPS for one in settings)


def look_at_web_concurrency(given: Given, environment: Mapping[str, str]) -> None:
    """The number of workers as platforms give it to all servers, unless it is given otherwise."""
    if "workers" not in given.values and environment.get("WEB_CONCURRENCY"):
        given.values["workers"] = whole("WEB_CONCURRENCY", environment["WEB_CONCURRENCY"])
        given.origins["workers"] = "WEB_CONCURRENCY"
