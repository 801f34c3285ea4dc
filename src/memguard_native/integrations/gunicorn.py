"""A memory limit for the workers of gunicorn, as hooks for its configuration file.

    from memguard_native.integrations.gunicorn import *
    from memguard_native.integrations.gunicorn import memory_limit

    memory_limit("512MiB")

A worker that has more memory of its own than that, or leaks, is replaced: another one serves before
it ends. The star imports the hooks and nothing else. Where a configuration has a hook of its own of
the same name, it calls ours as well; one that is not called is told at the start where that can be
seen. `docs/gunicorn.md` has an example. Linux only; elsewhere a warning says so.

The arbiter calls `nworkers_changed`, `pre_fork` and `child_exit`, a worker the others.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from memguard_native.errors import ConfigError, is_finite_number
from memguard_native.integrations.gunicorn_table import WorkerTable
from memguard_native.integrations.gunicorn_worker import WatchSettings, WorkerWatch
from memguard_native.recycling.group import read_group
from memguard_native.recycling.policy import RecyclePolicy

__all__ = [
    "child_exit",
    "nworkers_changed",
    "post_fork",
    "post_worker_init",
    "pre_fork",
    "worker_exit",
]

VARIABLE = "MEMGUARD_MAX_MEMORY"
_DAY = 24 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limit:
    policy: RecyclePolicy
    ready_timeout: float

    def settings(self, workers: int) -> WatchSettings:
        limit_bytes = read_group().limit_bytes
        policy = self.policy.resolved(
            workers=workers, limit_bytes=limit_bytes, cgroup_limit_bytes=limit_bytes
        )
        return WatchSettings(policy=policy, ready_timeout=self.ready_timeout)


def _from_environment() -> str | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        RecyclePolicy(max_memory=text)
    except ConfigError as error:
        raise ConfigError(VARIABLE, text, error.allowed) from None
    return text


def _make_limit(
    max_memory: int | float | str | None, *, ready_timeout: float = 300.0, **rules: Any
) -> _Limit:
    if max_memory is None:
        max_memory = _from_environment()
    if max_memory is None and not rules.get("on_leak", True):
        raise ConfigError("max_memory", None, "must be given where on_leak is False")
    if not is_finite_number(ready_timeout) or not 0 < ready_timeout <= _DAY:
        raise ConfigError("ready_timeout", ready_timeout, "must be seconds > 0, at most a day")
    policy = RecyclePolicy(max_requests=None, max_group_memory=None, max_memory=max_memory, **rules)
    return _Limit(policy=policy, ready_timeout=ready_timeout)


def memory_limit(
    max_memory: int | float | str | None = None,
    *,
    on_leak: bool = True,
    forecast_horizon: float = 3600.0,
    confirm_samples: int = 3,
    hysteresis: float = 0.9,
    sample_interval: float = 10.0,
    trim_first: bool = True,
    ready_timeout: float = 300.0,
) -> None:
    """Limit the memory of every worker; for a configuration file, where it is read at each reload.

    Args:
        max_memory: what a worker may have of its own, not shared with the arbiter: bytes, "512MiB",
            or "80%" of the limit of the container or the host, divided by the number of workers.
            Default `MEMGUARD_MAX_MEMORY`; without either only leaks count.
        on_leak: replace a worker that leaks, as docs/memory.md tells.
        forecast_horizon: seconds; a leak that may reach the limit of the system sooner does not
            wait.
        confirm_samples: how many samples running must be over the limit.
        hysteresis: the share of the limit below which memory has to fall to be watched anew.
        sample_interval: seconds between two samples.
        trim_first: collect garbage and have malloc give memory back before a worker is replaced.
        ready_timeout: seconds that another worker may take until it serves; after that it is
            killed, and the old one goes on.

    Raises ConfigError: an argument is of the wrong type or out of its range.
    """
    _hooks.limit = _make_limit(
        max_memory,
        on_leak=on_leak,
        forecast_horizon=forecast_horizon,
        confirm_samples=confirm_samples,
        hysteresis=hysteresis,
        sample_interval=sample_interval,
        trim_first=trim_first,
        ready_timeout=ready_timeout,
    )


class _Hooks:
    """What the hooks know, in the arbiter and, by fork, in each worker."""

    def __init__(self) -> None:
        self.limit = _make_limit(None)
        self._table: WorkerTable | None = None
        self._settings: WatchSettings | None = None
        self._configuration: object = None
        self._is_ours = False
        self._entries: dict[int, int] = {}
        """Of each worker that lives, by its age, which the arbiter gives no two workers."""
        self._has_seen_fork = False
        self._watch: WorkerWatch | None = None

    def count_changed(self, server: Any, new: int, old: int | None) -> None:
        # gunicorn has no hook that tells a reload before the number is set again, but then the
        # configuration is another one.
        if server.cfg is not self._configuration:
            self._configuration = server.cfg
            self._read(server, new)
            return
        if self._table is None or old is None or self._is_ours:
            return
        count = self._table.count_changed(new, old)
        if count != new:
            self._set_count(server, count)

    def _read(self, server: Any, count: int) -> None:
        if not sys.platform.startswith("linux"):
            server.log.warning("memguard: the memory of workers is limited on Linux only")
            return
        if self._table is None:
            self._settings = self.limit.settings(count)
            self._table = WorkerTable()
        else:
            try:
                self._settings = self.limit.settings(count)
            except ConfigError as error:  # the arbiter would end, and all workers with it
                server.log.error("memguard: %s; what was set before holds on", error)
        self._table.count_was_set(count)

    def _set_count(self, server: Any, count: int) -> None:
        self._is_ours = True
        try:
            server.num_workers = count
        finally:
            self._is_ours = False

    def reserve(self, worker: Any) -> None:
        entry = None if self._table is None else self._table.reserve()
        if entry is not None:
            self._entries[worker.age] = entry

    def was_forked(self, worker: Any) -> None:
        self._has_seen_fork = True
        if self._table is not None and worker.age in self._entries:
            self._table.tell_start(self._entries[worker.age], worker.pid)

    def start_watch(self, worker: Any) -> None:
        if not sys.platform.startswith("linux"):
            return
        _check_was_called("nworkers_changed", self._table is not None)
        _check_was_called("pre_fork", worker.age in self._entries)
        _check_was_called("post_fork", self._has_seen_fork)
        if self._table is not None and self._settings is not None:
            entry = self._entries[worker.age]
            self._watch = WorkerWatch(worker, self._table, entry, self._settings)
            self._watch.start()

    def ended(self, server: Any, worker: Any) -> None:
        """A worker is gone; on the arbiter's main thread, before it counts its workers."""
        entry = self._entries.pop(worker.age, None)
        if self._table is None or entry is None:
            return
        if self._table.ended(worker.pid, entry):
            count = max(1, server.num_workers - 1)
            self._set_count(server, count)
            self._table.tell_count(count)

    def stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()


def _check_was_called(hook: str, was_called: bool) -> None:
    if not was_called:
        called = f"memguard_native.integrations.gunicorn.{hook}"
        raise ConfigError(hook, "a hook of its own", f"must call {called} as well")


_hooks = _Hooks()


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    """gunicorn's hook: keeps the number of workers what people have set.

    Raises ConfigError, at the start: `max_memory` is a share, and of what is not known.
    """
    _hooks.count_changed(server, new_value, old_value)


def pre_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook: gives the worker its place in shared memory."""
    _hooks.reserve(worker)


def post_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook: tells that the worker lives, so that it can be killed if it never serves."""
    _hooks.was_forked(worker)


def post_worker_init(worker: Any) -> None:
    """gunicorn's hook: starts the watch of this worker; its monitor starts when it serves.

    Not in `post_fork`: that comes before the worker changes its user, and what it shares would
    belong to the arbiter's.

    Raises ConfigError: another hook of this module was not called.
    """
    _hooks.start_watch(worker)


def worker_exit(server: Any, worker: Any) -> None:
    """gunicorn's hook: ends the watch. The arbiter calls it for a worker that somebody else has
    reaped."""
    if os.getpid() == worker.pid:
        _hooks.stop_watch()
    else:
        _hooks.ended(server, worker)


def child_exit(server: Any, worker: Any) -> None:
    """gunicorn's hook: frees the worker's place; lowers the number where one was added for it."""
    _hooks.ended(server, worker)
