"""The hooks and settings for gunicorn's configuration file, without gunicorn's processes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from memguard_native.errors import ConfigError
from memguard_native.integrations import gunicorn
from memguard_native.integrations.gunicorn_table import Phase


@pytest.fixture
def hooks(monkeypatch):
    """The hooks of a process of its own."""
    monkeypatch.delenv(gunicorn.VARIABLE, raising=False)
    hooks = gunicorn._Hooks()
    monkeypatch.setattr(gunicorn, "_hooks", hooks)
    return hooks


class Log:
    def __init__(self):
        self.errors = []

    def error(self, text, *values):
        self.errors.append(text % values)


class Server:
    """As much of an arbiter as the hooks touch."""

    def __init__(self, workers):
        self.log = Log()
        self._num_workers = None
        self.set_up(workers)

    def set_up(self, workers):
        self.cfg = SimpleNamespace(workers=workers)
        self.num_workers = workers

    @property
    def num_workers(self):
        return self._num_workers

    @num_workers.setter
    def num_workers(self, value):
        old, self._num_workers = self._num_workers, value
        gunicorn.nworkers_changed(self, value, old)


def test_the_star_imports_the_hooks_and_nothing_else():
    names: dict[str, object] = {}
    exec("from memguard_native.integrations.gunicorn import *", names)
    assert set(names) - {"__builtins__"} == {
        "child_exit",
        "nworkers_changed",
        "post_fork",
        "post_worker_init",
        "pre_fork",
        "worker_exit",
    }


def test_a_limit_is_a_size_or_a_share_for_each_worker(hooks):
    gunicorn.memory_limit("512MiB")
    assert hooks.limit.settings(4).policy.max_memory == 512 * 2**20
    gunicorn.memory_limit("80%")
    four, one = (hooks.limit.settings(count).policy.max_memory for count in (4, 1))
    assert abs(one - 4 * four) <= 4


def test_the_environment_gives_the_limit_where_the_file_does_not(hooks, monkeypatch):
    monkeypatch.setenv(gunicorn.VARIABLE, "256MiB")
    gunicorn.memory_limit(on_leak=False)
    assert hooks.limit.settings(1).policy.max_memory == 256 * 2**20
    gunicorn.memory_limit("128MiB")
    assert hooks.limit.settings(1).policy.max_memory == 128 * 2**20


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"max_memory": "lots"}, "max_memory"),
        ({"max_memory": -1}, "max_memory"),
        ({"confirm_samples": 0}, "confirm_samples"),
        ({"sample_interval": 0}, "sample_interval"),
        ({"ready_timeout": 0}, "ready_timeout"),
        ({"ready_timeout": float("inf")}, "ready_timeout"),
        ({"on_leak": False}, "max_memory"),
    ],
)
def test_a_wrong_setting_is_told_where_it_is_given(hooks, arguments, field):
    with pytest.raises(ConfigError) as caught:
        gunicorn.memory_limit(**arguments)
    assert caught.value.field == field


def test_a_wrong_variable_is_told_by_its_name(monkeypatch):
    monkeypatch.setenv(gunicorn.VARIABLE, "lots")
    with pytest.raises(ConfigError) as caught:
        gunicorn._Hooks()
    assert caught.value.field == gunicorn.VARIABLE


def test_a_hook_that_is_not_called_is_named(hooks):
    worker = SimpleNamespace(age=1, pid=7)
    with pytest.raises(ConfigError, match="nworkers_changed must call"):
        gunicorn.post_worker_init(worker)
    server = Server(1)
    with pytest.raises(ConfigError, match="pre_fork must call"):
        gunicorn.post_worker_init(worker)
    gunicorn.pre_fork(server, worker)
    with pytest.raises(ConfigError, match="post_fork must call"):
        gunicorn.post_worker_init(worker)


def start(server, age):
    worker = SimpleNamespace(age=age, pid=1000 + age)
    gunicorn.pre_fork(server, worker)
    gunicorn.post_fork(server, worker)
    return worker


@pytest.mark.parametrize("hook", [gunicorn.child_exit, gunicorn.worker_exit])
def test_the_number_goes_up_and_down_with_a_replacement(hooks, hook):
    server = Server(2)
    old = start(server, 1)
    assert hooks._table.take(old.pid)
    server.num_workers += 1
    hook(server, old)
    assert server.num_workers == hooks._table.count == 2


def test_a_signal_of_a_worker_that_was_killed_changes_nothing(hooks):
    server = Server(2)
    old = start(server, 1)
    hooks._table.take(old.pid)
    gunicorn.child_exit(server, old)
    server.num_workers += 1
    assert server.num_workers == hooks._table.count == 2
    server.num_workers += 1
    assert server.num_workers == hooks._table.count == 3


def test_a_reload_sets_the_number_though_it_looks_like_one_worker_less(hooks):
    server = Server(2)
    old = start(server, 1)
    hooks._table.take(old.pid)
    server.num_workers += 1
    server.set_up(2)
    assert hooks._table.phase is Phase.idle
    gunicorn.child_exit(server, old)
    assert server.num_workers == 2


def test_a_reload_with_a_limit_that_cannot_be_kept_leaves_the_one_before(hooks, monkeypatch):
    gunicorn.memory_limit("512MiB")
    server = Server(1)

    def fail(_self, _workers):
        raise ConfigError("max_memory", "80%", "must be a size where no limit is known")

    monkeypatch.setattr(gunicorn._Limit, "settings", fail)
    server.set_up(3)
    assert server.log.errors == [
        "memguard: max_memory must be a size where no limit is known, got '80%'; "
        "what was set before holds on"
    ]
    assert hooks._settings.policy.max_memory == 512 * 2**20
    assert hooks._table.count == 3


def test_a_worker_that_ends_is_not_counted_by_itself(hooks):
    server = Server(1)
    worker = start(server, 1)
    worker.pid = os.getpid()
    gunicorn.worker_exit(server, worker)
    assert worker.age in hooks._entries
