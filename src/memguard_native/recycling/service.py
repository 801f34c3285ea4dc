"""`run()`: any ASGI application under a supervisor that replaces workers before they fall.

    from memguard_native import recycling

    recycling.run("shop.web:app", workers=4, policy=recycling.RecyclePolicy(max_memory="80%"))

The calling process becomes the supervisor: it owns the listening socket and never imports the
application. Call it from the main thread; it returns when the service has ended.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from memguard_native import _core
from memguard_native.errors import ConfigError, is_finite_number
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.surroundings import read_surroundings
from memguard_native.recycling.children import os_threads
from memguard_native.recycling.listener import BoundPath, inherited_listener, open_listener
from memguard_native.recycling.logs import configure_logging
from memguard_native.recycling.policy import RecyclePolicy, ResolvedPolicy
from memguard_native.recycling.settings import BACKLOG, MOST_PROCESSES, ServiceSettings
from memguard_native.recycling.supervisor import Supervisor
from memguard_native.recycling.uvicorn import RecyclingWarning
from memguard_native.recycling.zygote import GivenObjects
from memguard_native.segment import checked_namespace

_STARTS = ("auto", "zygote", "spawn")
# What uvicorn can be told, and a supervisor cannot: with what to say instead.
_NOT_HERE = {
    "reload": "is for development: use uvicorn itself there",
    "reload_dirs": "is for development: use uvicorn itself there",
    "reload_includes": "is for development: use uvicorn itself there",
    "reload_excludes": "is for development: use uvicorn itself there",
    "reload_delay": "is for development: use uvicorn itself there",
    "limit_max_requests_jitter": "is `jitter` of the policy here",
    "timeout_graceful_shutdown": "is `drain_timeout` here",
    "timeout_worker_healthcheck": "is `hang_timeout` here",
    "app_dir": "is not needed: the directory that the service is started in is looked at first",
}


def run(
    app: object,
    *,
    workers: int = 1,
    policy: RecyclePolicy | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | None = None,
    fd: int | None = None,
    start: str = "auto",
    preload: str | Callable[[], object] | None = None,
    warm_up: str | Callable[[], object] | None = None,
    factory: bool = False,
    ready_timeout: float = 300.0,
    drain_timeout: float = 30.0,
    hang_timeout: float = 30.0,
    kill_timeout: float = 5.0,
    timeout_keep_alive: float = 30.0,
    shutdown_delay: float = 0.0,
    overlap: bool = True,
    dry_run: bool = False,
    minute_s: float = 60.0,
    namespace: str | None = None,
    on_ready: Callable[[str], object] | None = None,
    **uvicorn_options: Any,
) -> int:
    """Serve `app` until SIGTERM or SIGINT; the exit code, 1 if the service could not go on.

    Args:
        app: "package.module:attribute", or an ASGI application. An object goes to the workers by
            fork, so this process must have no threads yet, and SIGHUP loads nothing anew.
        workers: processes that serve, from 1 to 30.
        policy: when workers are replaced; default `RecyclePolicy()`.
        host, port: where to listen; port 0 lets the system choose. Under systemd's socket
            activation its socket is taken instead.
        uds: listen on a unix socket of this path instead.
        fd: take this listening socket instead.
        start: "zygote" forks workers from a process that has loaded the application, in
            milliseconds and with its memory shared; "spawn" starts each afresh; "auto" forks where
            that is safe, and else says why not.
        preload: called once the application is imported, to load what workers share (a model).
        warm_up: called in each worker before it is ready; or a path, "/search?q=x", that is asked
            of the application itself. It may be a coroutine function.
        factory: `app` is called, and returns the application.
        ready_timeout: seconds from the start of a worker until it must be ready; and those that
            the application may take to be loaded before workers are forked.
        drain_timeout: seconds for what a worker still has to do before it is closed.
        hang_timeout: seconds without a turn of the event loop after which a worker is killed.
        kill_timeout: seconds from the end of the drain until a worker is killed.
        timeout_keep_alive: seconds that an idle connection is kept.
        shutdown_delay: seconds from SIGTERM until the drain, in which /readyz says no already.
        overlap: False for an application that cannot run twice (a lock, a second port): the old
            worker then ends before the new one starts.
        dry_run: only say what would be replaced; as in the policy.
        minute_s: seconds that stand for a minute of the leak detector, for tests.
        namespace: of the shared memory and the control socket; default `MEMGUARD_NAMESPACE` or
            "default". One for each service.
        on_ready: called with the service's URL when all workers are ready for the first time.
        uvicorn_options: any further argument of `uvicorn.run`.

    Raises:
        ConfigError: an argument, the application or an option of uvicorn is not what it should be.
        SegmentError: there is no shared memory to be had, or it is somebody else's.
        OSError: nothing can listen there.
    """
    _check_system()
    _open_standard_streams()
    policy = RecyclePolicy() if policy is None else policy
    if not isinstance(policy, RecyclePolicy):
        raise ConfigError("policy", policy, "must be a RecyclePolicy")
    policy = _with_request_limit(policy, uvicorn_options)
    if dry_run:
        policy = replace(policy, dry_run=True)
    _check_workers(workers, policy)
    if start not in _STARTS:
        raise ConfigError("start", start, f"must be one of {', '.join(map(repr, _STARTS))}")
    for name, value in (
        ("ready_timeout", ready_timeout),
        ("drain_timeout", drain_timeout),
        ("hang_timeout", hang_timeout),
        ("kill_timeout", kill_timeout),
        ("timeout_keep_alive", timeout_keep_alive),
        ("minute_s", minute_s),
    ):
        if not is_finite_number(value) or value <= 0:
            raise ConfigError(name, value, "must be a number of seconds > 0")
    if not is_finite_number(shutdown_delay) or shutdown_delay < 0:
        raise ConfigError("shutdown_delay", shutdown_delay, "must be a number of seconds >= 0")
    given = _given(app, start, preload, warm_up)
    settings = ServiceSettings(
        app=app if isinstance(app, str) else type(app).__name__,
        factory=factory,
        preload=None if given else _name_of("preload", preload),
        warm_up=warm_up
        if isinstance(warm_up, str)
        else None
        if given
        else _name_of("warm_up", warm_up),
        policy=_resolved(policy, workers),
        kill_timeout=kill_timeout,
        drain_timeout=drain_timeout,
        timeout_keep_alive=timeout_keep_alive,
        minute_s=minute_s,
        namespace=checked_namespace(namespace),
        supervisor=os.getpid(),
        uvicorn_options={"host": host, "port": port, "backlog": BACKLOG, **uvicorn_options},
    )
    settings.check()
    listener = None if fd is not None else inherited_listener(host=host, port=port, uds=uds)
    bound = None
    if listener is None:
        backlog = settings.uvicorn_options["backlog"]
        listener = open_listener(host=host, port=port, uds=uds, fd=fd, backlog=backlog)
        # A service manager that keeps the listener keeps its path as well.
        if uds is not None and "NOTIFY_SOCKET" not in os.environ:
            bound = BoundPath(uds)
    configure_logging(uvicorn_options.get("log_level"))
    try:
        supervisor = Supervisor(
            settings,
            listener,
            given,
            workers=workers,
            start=start,
            ready_timeout=ready_timeout,
            hang_timeout=hang_timeout,
            shutdown_delay=shutdown_delay,
            overlap=overlap,
            on_ready=on_ready,
        )
        return supervisor.run()
    finally:
        if bound is not None:
            bound.remove()


def _check_system() -> None:
    if not sys.platform.startswith("linux"):
        raise ConfigError("platform", sys.platform, "must be Linux: recycling works there so far")
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("thread", threading.current_thread().name, "must be the main thread")


def _open_standard_streams() -> None:
    """Where one is closed, the next socket would have its number, and get what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free


def _with_request_limit(policy: RecyclePolicy, options: dict[str, Any]) -> RecyclePolicy:
    for name, instead in _NOT_HERE.items():
        if name in options:
            raise ConfigError(name, options[name], instead)
    for field in fields(policy):
        if field.name in options:
            allowed = f"belongs to the policy: policy=RecyclePolicy({field.name}=...)"
            raise ConfigError(field.name, options[field.name], allowed)
    if "limit_max_requests" not in options:
        return policy
    limit = options.pop("limit_max_requests")
    if limit is None:
        return policy
    text = f"limit_max_requests={limit!r} is taken for max_requests of the policy"
    warnings.warn(text, RecyclingWarning, stacklevel=3)
    return replace(policy, max_requests=limit)


def _check_workers(workers: object, policy: RecyclePolicy) -> None:
    most = MOST_PROCESSES - policy.max_concurrent
    if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= most:
        raise ConfigError("workers", workers, f"must be a whole number from 1 to {most}")


def _resolved(policy: RecyclePolicy, workers: int) -> ResolvedPolicy:
    """Shares are of the control group's limit or MEMGUARD_LIMIT, else of the host's memory."""
    sample = MemorySample._make(_core.Probe(load=None, root="").sample())
    surroundings = read_surroundings(os.environ)
    known = [
        limit
        for limit in (sample.cgroup_limit_bytes, surroundings.variable_bytes)
        if limit is not None
    ]
    return policy.resolved(
        workers=workers,
        limit_bytes=min(known, default=surroundings.host_bytes),
        # MEMGUARD_LIMIT is no limit of the group, whose memory may be that of the host.
        cgroup_limit_bytes=sample.cgroup_limit_bytes,
    )


def _given(
    app: object,
    start: str,
    preload: str | Callable[[], object] | None,
    warm_up: str | Callable[[], object] | None,
) -> GivenObjects | None:
    if isinstance(app, str):
        return None
    if not callable(app):
        raise ConfigError("app", app, "must be an ASGI application or its import string")
    if start == "spawn":
        raise ConfigError("app", app, "must be an import string with start='spawn'")
    if len(threads := os_threads()) > 1:
        raise ConfigError(
            "app",
            app,
            f"must be an import string: this process has threads ({', '.join(threads[1:6])}), so "
            "it cannot be forked",
        )
    return GivenObjects(
        app,
        preload=preload if callable(preload) else None,
        warm_up=warm_up if callable(warm_up) else None,
    )


def _name_of(field: str, function: str | Callable[[], object] | None) -> str | None:
    """Its import string: the application is imported by other processes, and so is this."""
    if function is None or isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name or "<" in name:
        allowed = "must be an import string, or a function at the top of a module"
        raise ConfigError(field, function, allowed)
    return f"{module}:{name}"
