"""The zygote: a process that has imported the application and is forked for each worker.

A fork takes milliseconds and shares all memory that nobody writes to, a loaded model above all.
After loading, `gc.freeze()` takes what there is out of the collector's sight: else its first run in
a worker would write to every object, and so copy all of it.

A process with threads cannot be forked safely: what a thread holds at that moment stays held in the
child. So threads, native ones too, and a CUDA context are looked for, and told to the supervisor,
which then has the workers spawned.

One thread, and no event loop. It ends when the supervisor does; workers live on without it.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from memguard_native import _core
from memguard_native.errors import ConfigError, MemguardError
from memguard_native.recycling.children import os_threads, signal_group
from memguard_native.recycling.logs import tell_where_it_hangs
from memguard_native.recycling.messages import (
    Channel,
    ChannelClosedError,
    Frame,
    Kind,
    fields_of,
    shortened,
)
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace

if TYPE_CHECKING:
    from memguard_native.recycling.loading import Objects

logger = logging.getLogger("memguard_native.recycling")

# More compute threads than one do not survive a fork, and workers are the way to use more cores.
# What the user has set stays, and then is a reason to spawn.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


_FOR_THE_SUPERVISOR = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class GivenObjects(NamedTuple):
    """What was given to `recycling.run` as objects, not as import strings."""

    app: object
    preload: Callable[[], object] | None = None
    warm_up: Callable[[], object] | None = None


class Zygote:
    """The zygote of this process."""

    def __init__(
        self,
        channel: Channel,
        listener: socket.socket,
        settings: ServiceSettings,
        given: GivenObjects | None = None,
    ) -> None:
        self._channel = channel
        self._listener = listener
        self._settings = settings
        self._given = given
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: (pid, generation)
        self._selector = selectors.DefaultSelector()
        self._is_leaving = False

    def run(self) -> int:
        """Serve the supervisor until it is gone; the exit code of the process.

        In a worker that was forked it returns as well: with the exit code of that one.
        """
        end_with(self._settings.supervisor, signal.SIGKILL)
        prepare_signals()
        # systemd signals every process; this one ends when the supervisor says so.
        signal.signal(signal.SIGTERM, _do_nothing)
        os.register_at_fork(after_in_child=_end_when_told)
        os.setpgid(0, 0)
        if self._given is not None:
            _keep_what_is_shared()  # with the process of whoever has given it
        tell_where_it_hangs()
        started = time.monotonic()
        try:
            objects = self._load()
        except ConfigError as error:
            failed = shortened(str(error), 1000)
            self._channel.send(
                Kind.loaded, payload={"failed": failed, "config_error": fields_of(error)}
            )
            return 1
        except MemguardError as error:  # it says itself what is wrong, and what to do
            self._channel.send(Kind.loaded, payload={"failed": shortened(str(error), 1000)})
            return 1
        except Exception as error:
            logger.exception("the application could not be loaded")
            failed = shortened(f"{type(error).__name__}: {error}", 1000)
            self._channel.send(Kind.loaded, payload={"failed": failed})
            return 1
        gc.collect()
        gc.freeze()
        self._channel.send(
            Kind.loaded,
            payload={
                "load_s": round(time.monotonic() - started, 3),
                "threads": [shortened(name, 50) for name in _other_threads()[:20]],
                "has_cuda": _has_cuda(),
                "private_bytes": _core.private_bytes(),
            },
        )
        return self._serve(objects)

    def _load(self) -> Objects:
        for name in _ONE_THREAD:
            os.environ.setdefault(name, "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from memguard_native.recycling.loading import (
            import_server,
            load_objects,
            new_runner,
            server_config,
        )

        given = self._given
        if given is None:
            objects = load_objects(self._settings)
        else:
            objects = load_objects(
                self._settings, app=given.app, preload=given.preload, warm_up=given.warm_up
            )
        import_server()
        # Imports the protocols, and says now what is wrong with the options.
        config = server_config(self._settings, objects.app)
        # Whatever the application has made of it: its workers are to be waited for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        new_runner(config)  # and uvloop, 4 MB in each worker; no loop is made before it is entered
        return objects

    def _serve(self, objects: Objects) -> int:
        self._selector.register(self._channel, selectors.EVENT_READ)
        while not (self._is_leaving and not self._children):
            self._channel.flush()
            for key, _ in self._selector.select(1.0 if self._channel.has_waiting else None):
                if key.fileobj is not self._channel:
                    self._reap(key.fd)
                    continue
                try:
                    while (frame := self._channel.receive()) is not None:
                        if (code := self._on_frame(frame, objects)) is not None:
                            return code
                except ChannelClosedError:
                    return 0
        return 0

    def _on_frame(self, frame: Frame, objects: Objects) -> int | None:
        """The exit code of a worker, in the worker; else None."""
        if frame.kind is Kind.exit:
            self._is_leaving = True
            self._listener.close()  # as long as anybody has it, clients wait to be accepted
        elif frame.kind is Kind.fork and frame.descriptor is not None:
            return self._fork(frame.seq, WorkerPlace(**frame.payload), frame.descriptor, objects)
        return None

    def _fork(
        self, generation: int, place: WorkerPlace, control: int, objects: Objects
    ) -> int | None:
        try:
            pid = os.fork()
        except OSError as error:  # its end of the channel tells the supervisor
            logger.error("worker %d could not be forked: %s", place.number, error)
            os.close(control)
            return None
        if pid == 0:
            return self._become_worker(place, control, objects)
        os.close(control)
        try:
            # Before anybody can reap it, so that it is this child's and no later process's.
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor: the supervisor sees the end of its channel
            logger.error("worker %d cannot be watched: %s", place.number, error)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        self._children[pidfd] = (pid, generation)
        self._selector.register(pidfd, selectors.EVENT_READ)
        if not self._channel.send_descriptor(Kind.forked, pidfd, seq=generation, arg=pid):
            # The supervisor has the worker's own word for its process number.
            logger.warning("no room to tell of worker process %d", pid)
        return None

    def _become_worker(self, place: WorkerPlace, control: int, objects: Objects) -> int:
        from memguard_native.recycling.worker import Worker

        self._selector.close()
        self._channel.close()
        for pidfd in self._children:
            os.close(pidfd)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _keep_what_is_shared()
        _reseed()
        channel = Channel(socket.socket(fileno=control))
        return Worker(channel, self._listener, self._settings, place, objects).run()

    def _reap(self, pidfd: int) -> None:
        pid, generation = self._children.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # Before it is reaped: until then nobody else can have its number.
        signal_group(pid, signal.SIGTERM)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:  # the application waits for all children that there are
            status = 0
        self._channel.send(Kind.reaped, seq=generation, arg=status)


def end_with(supervisor: int, number: signal.Signals) -> None:
    """The kernel sends this process a signal when the supervisor ends."""
    _core.set_parent_death_signal(number)
    if os.getppid() != supervisor:  # it has ended already
        raise SystemExit(1)


def prepare_signals() -> None:
    """What is meant for the supervisor ends nobody else; before the application is imported, which
    may have handlers of its own.

    By handlers and not by SIG_IGN: that would hold for whatever the application starts as well.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it has no status of a child
    for number in _FOR_THE_SUPERVISOR:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
            signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: object) -> None:
    pass


def _end_when_told() -> None:
    """`multiprocessing` of the application, at its import, ends its processes by SIGTERM."""
    if signal.getsignal(signal.SIGTERM) is _do_nothing:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _keep_what_is_shared() -> None:
    """What this process was forked with is for others too, a temporary directory or a process of
    `multiprocessing` for example: it ends with who has made it, and not with this process."""
    for one in list(getattr(weakref.finalize, "_registry", ())):
        one.atexit = False
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        processes._children.clear()


def _reseed() -> None:
    """Each worker draws other numbers from numpy too; `random` sees to it by itself."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def _other_threads() -> list[str]:
    """All but this one, the native ones too; Python's by the names that it knows them by."""
    named = [one.name for one in threading.enumerate() if one is not threading.current_thread()]
    native = len(os_threads()) - 1 - len(named)
    return [*named, *["a native thread"] * native]


def _has_cuda() -> bool:
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def end_process_after(run: Callable[[], int]) -> NoReturn:
    """`end_process` with what `run()` returns; whatever it raises ends here.

    In a process that was forked from the user's, it would else go on in the user's code.
    """
    try:
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        logger.exception("process %d ends", os.getpid())
        code = 1
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End as an interpreter does, without taking down objects that are shared with the template.

    To free them would copy them first.
    """
    import atexit

    with suppress(Exception):
        atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
