"""Whoever is killed and whenever: gunicorn keeps the number of workers that people have set.

A model of gunicorn's arbiter (27.0.1: one signal after the other, then `manage_workers`) with the
real hooks and the real dialogue of its workers, in every order of their steps.
"""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from memguard_native.integrations.gunicorn import _Hooks
from memguard_native.integrations.gunicorn_table import WorkerTable
from memguard_native.integrations.gunicorn_worker import Replacement

READY_TIMEOUT = 10.0
STRAY_SECONDS = 61.0
MOST_WORKERS = 5
log = logging.getLogger("gunicorn.model")
log.disabled = True


class ModelTable(WorkerTable):
    """All workers are in this process, so the lock that ends with a process is played."""

    asking = 0
    locked_by = 0

    def _try_lock(self):
        if self.locked_by not in (0, self.asking):
            return False
        self.locked_by = self.asking
        return True

    def release(self):
        self.locked_by = 0


class Worker:
    def __init__(self, arbiter, age):
        self.arbiter, self.age, self.pid = arbiter, age, 1000 + age
        self.is_alive, self.is_due, self.has_term = True, False, False
        self.dies_before_signal = False
        self.entry = None

    def fork(self):
        hooks = self.arbiter.hooks
        hooks.was_forked(self)
        self.entry = hooks._entries[self.age]
        self.replacement = Replacement(
            hooks._table,
            self.entry,
            self.pid,
            add_worker=self.add_worker,
            kill=self.arbiter.kill,
            log=log,
            ready_timeout=READY_TIMEOUT,
        )

    @property
    def serves(self):
        return self.arbiter.table.is_serving(self.entry)

    def add_worker(self):
        if self.dies_before_signal:
            self.die()
        else:
            self.arbiter.signals.append("ttin")

    def step(self):
        self.arbiter.table.asking = self.pid
        if self.replacement.step(self.arbiter.seconds):
            self.has_term = True

    def die(self, *, seen_first=False):
        self.is_alive = False
        if self.arbiter.table.locked_by == self.pid:
            self.arbiter.table.locked_by = 0
        position = 0 if seen_first else len(self.arbiter.signals)
        self.arbiter.signals.insert(position, "chld")


class Arbiter:
    def __init__(self, workers):
        self.seconds = 1000.0
        self.hooks = _Hooks()
        self.table = ModelTable(clock_ns=lambda: int(self.seconds * 1e9))
        self.hooks._table = self.table
        self.log = log
        self.workers = {}
        self.signals = []
        self._ages = itertools.count(1)
        self._count = None
        self.wanted = 0
        self.set_up(workers)
        self.manage_workers()

    @property
    def num_workers(self):
        return self._count

    @num_workers.setter
    def num_workers(self, value):
        old, self._count = self._count, value
        self.hooks.count_changed(self, value, old)

    def set_up(self, workers):
        self.cfg = SimpleNamespace(workers=workers)
        self.num_workers = self.wanted = workers

    def spawn(self):
        worker = Worker(self, next(self._ages))
        self.hooks.reserve(worker)
        self.workers[worker.pid] = worker
        worker.fork()

    def manage_workers(self):
        for _ in range(self.num_workers - len(self.workers)):
            self.spawn()
        oldest_first = sorted(self.workers.values(), key=lambda worker: worker.age)
        for worker in oldest_first[: max(0, len(self.workers) - self.num_workers)]:
            worker.has_term = True

    def handle(self, name):
        if name == "ttin":
            self.num_workers += 1
        elif name == "ttou" and self.num_workers > 1:
            self.num_workers -= 1
        elif name == "chld":
            for worker in [one for one in self.workers.values() if not one.is_alive]:
                del self.workers[worker.pid]
                self.hooks.ended(self, worker)
        elif name.startswith("hup"):
            self.set_up(int(name[3:]))
            for _ in range(self.cfg.workers):
                self.spawn()
        self.manage_workers()

    def kill(self, pid):
        if pid in self.workers and self.workers[pid].is_alive:
            self.workers[pid].die()


class GunicornMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.arbiter = Arbiter(2)
        self.unsent_at = -1000.0

    def pick(self, number):
        alive = [one for one in self.arbiter.workers.values() if one.is_alive]
        return alive[number % len(alive)] if alive else None

    numbers = st.integers(0, 9)

    @rule(number=numbers, unsent=st.integers(0, 9).map(lambda n: n == 0))
    def wants_to_be_replaced(self, number, unsent):
        worker = self.pick(number)
        if worker is not None and worker.serves:
            worker.is_due = True
            # One of people that is on its way would be taken for the unsent one.
            worker.dies_before_signal = unsent and "ttin" not in self.arbiter.signals
            worker.step()
            if not worker.is_alive:
                self.unsent_at = self.arbiter.seconds

    @rule()
    def due_workers_look(self):
        for worker in tuple(self.arbiter.workers.values()):
            if worker.is_alive and worker.is_due and not worker.has_term:
                worker.dies_before_signal = False
                worker.step()

    @rule(number=numbers)
    def comes_to_serve(self, number):
        worker = self.pick(number)
        if worker is not None:
            self.arbiter.table.tell_serving(worker.entry, worker.pid)

    @rule(number=numbers, seen_first=st.booleans())
    def is_killed(self, number, seen_first):
        worker = self.pick(number)
        if worker is not None:
            worker.die(seen_first=seen_first)

    @rule()
    def ends_as_told(self):
        for worker in self.arbiter.workers.values():
            if worker.is_alive and worker.has_term:
                worker.die()

    @rule()
    def arbiter_handles_a_signal(self):
        if self.arbiter.signals:
            self.arbiter.handle(self.arbiter.signals.pop(0))

    @rule(seconds=st.sampled_from([0.1, 5.0, READY_TIMEOUT + 1.0, STRAY_SECONDS]))
    def time_passes(self, seconds):
        # The arbiter is never busy for a minute: else a stray signal counts.
        while self.arbiter.signals:
            self.arbiter.handle(self.arbiter.signals.pop(0))
        self.arbiter.seconds += seconds

    def is_exact(self):
        """Not for a minute after a worker died within microseconds of its signal, unsent."""
        return self.arbiter.seconds - self.unsent_at > STRAY_SECONDS - 1.0

    @precondition(lambda self: self.is_exact() and self.arbiter.wanted < MOST_WORKERS)
    @rule()
    def people_add_a_worker(self):
        self.arbiter.signals.append("ttin")
        self.arbiter.wanted += 1

    @precondition(lambda self: not self.arbiter.signals)
    @rule()
    def people_remove_a_worker(self):
        self.arbiter.handle("ttou")
        self.arbiter.wanted = max(1, self.arbiter.wanted - 1)

    @precondition(lambda self: not self.arbiter.signals)
    @rule(workers=st.integers(1, 3))
    def people_reload(self, workers):
        self.arbiter.handle(f"hup{workers}")

    def teardown(self):
        for _ in range(60):
            self.time_passes(STRAY_SECONDS)
            self.ends_as_told()
            for number in range(len(self.arbiter.workers)):
                self.comes_to_serve(number)
            self.due_workers_look()
        self.time_passes(0.0)
        workers = self.arbiter.workers.values()
        assert self.arbiter.num_workers == self.arbiter.wanted
        assert len(workers) == self.arbiter.wanted
        assert not any(worker.is_due for worker in workers)


TestGunicorn = GunicornMachine.TestCase
TestGunicorn.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
