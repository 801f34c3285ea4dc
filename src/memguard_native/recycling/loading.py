"""Loads what a service consists of, and makes uvicorn's configuration of it: in workers and zygote.

Never imported by the supervisor: it imports uvicorn, and the application.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from memguard_native.errors import ConfigError
from memguard_native.recycling.settings import ServiceSettings
from memguard_native.recycling.uvicorn import checked_options

if TYPE_CHECKING:
    import uvicorn

    from memguard_native.recycling.server import RecyclingServer

WarmUp = Callable[["RecyclingServer"], Awaitable[None]]


class Objects(NamedTuple):
    """The application and what belongs to it."""

    app: Any
    warm_up: WarmUp | None = None


def load_objects(
    settings: ServiceSettings,
    *,
    app: object | None = None,
    preload: Callable[[], object] | None = None,
    warm_up: Callable[[], object] | None = None,
) -> Objects:
    """Import the application, call its factory and `preload`. Objects that are given are taken.

    Raises ConfigError: an import string leads nowhere. What the application's code raises.
    """
    if app is None:
        app = _import_app(settings)
    if preload is None and settings.preload is not None:
        preload = import_attribute("preload", settings.preload)
    if preload is not None:
        _kept.append(preload())
    return Objects(app, _warm_up_of(settings, warm_up))


def _import_app(settings: ServiceSettings) -> object:
    found = import_attribute("app", settings.app)
    if not callable(found):
        raise ConfigError("app", settings.app, f"must name an ASGI application; it is {found!r}")
    if not settings.factory:
        return found
    try:
        inspect.signature(found).bind()
    except TypeError:
        allowed = "must name a function without arguments that returns the application"
        raise ConfigError("app", settings.app, f"{allowed}, with factory=True") from None
    return found()


_kept: list[object] = []
"""What `preload` has returned: nobody else may hold it."""


def _warm_up_of(settings: ServiceSettings, given: Callable[[], object] | None) -> WarmUp | None:
    if settings.warm_up is not None and settings.warm_up.startswith("/"):
        path = settings.warm_up
        return lambda server: _request(server, path)
    function = given
    if function is None and settings.warm_up is not None:
        function = import_attribute("warm_up", settings.warm_up)
    if function is None:
        return None

    async def call(server: RecyclingServer) -> None:
        result = function()
        if inspect.isawaitable(result):
            await result

    return call


async def _request(server: RecyclingServer, path: str) -> None:
    """A GET through the application itself. Raises RuntimeError: it is answered by an error."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    route, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": server.config.root_path,
        "headers": [(b"host", b"localhost"), (b"user-agent", b"memguard-warm-up")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": dict(server.lifespan.state),
    }
    application: Any = server.config.loaded_app
    await application(scope, receive, send)
    if not 200 <= status < 400:
        raise RuntimeError(f"the warm-up request {path} was answered with {status or 'nothing'}")


def import_attribute(field: str, name: str) -> Any:
    """What "package.module:attribute" names. Raises ConfigError, and what the module raises."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise ConfigError(field, name, "must have the form 'package.module:attribute'")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the application's own code misses
        allowed = f"must name a module that can be imported; there is no {error.name!r}"
        raise ConfigError(field, name, allowed) from None
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            allowed = f"must name something that is there; {module_name!r} has no {path!r}"
            raise ConfigError(field, name, allowed)
        found = getattr(found, attribute)
    return found


def server_config(settings: ServiceSettings, app: object) -> uvicorn.Config:
    """uvicorn's configuration of a worker, loaded.

    Raises ConfigError: an option that uvicorn has not, or cannot use: a file that is not there.
    """
    import uvicorn

    options = checked_options(settings.uvicorn_options)
    try:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            timeout_keep_alive=settings.timeout_keep_alive,  # type: ignore[arg-type]
            **options,
        )
        config.load()
    except (OSError, ValueError, AssertionError, KeyError) as error:
        files = {
            name: value
            for name, value in options.items()
            if name.startswith(("ssl_", "log_config")) and name != "ssl_keyfile_password"
        }
        allowed = f"must be what uvicorn can use: {type(error).__name__}: {error}"
        raise ConfigError("options of uvicorn", files or sorted(options), allowed) from error
    return config


def import_server() -> None:
    """Import in a zygote what each worker will need."""
    for name in ("asgi", "contract", "handover", "protocol", "server", "worker"):
        importlib.import_module(f"memguard_native.recycling.{name}")
    # numpy, of the detector
    importlib.import_module("memguard_native.memory.run")


def new_runner(config: uvicorn.Config) -> asyncio.Runner:
    """Runs coroutines on the kind of loop that uvicorn was told; it is imported here."""
    if hasattr(config, "get_loop_factory"):
        return asyncio.Runner(loop_factory=config.get_loop_factory())
    config.setup_event_loop()  # before uvicorn 0.36
    return asyncio.Runner()
