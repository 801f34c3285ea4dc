"""The native core. Written by hand; stubtest compares it with the module."""

import sys
from collections.abc import Callable, Generator
from typing import Any, Generic, ParamSpec, TypeVar, final

import numpy as np
import numpy.typing as npt

_P = ParamSpec("_P")
_R = TypeVar("_R")

__version__: str

# --- errors ---------------------------------------------------------------------------------------

class MemguardError(Exception):
    """Base of every error that this package raises on purpose."""

class CircuitOpenError(MemguardError):
    """A call was rejected because its circuit is open. It holds no frame and no exception."""

    @property
    def name(self) -> str:
        """The breaker's name."""
    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted again, > 0."""
    @property
    def reason(self) -> str:
        """Why this call was rejected: "open", or "probing" while a probe runs."""
    @property
    def state(self) -> str:
        """The breaker's state: "open" or "half_open"."""
    @property
    def failure_count(self) -> int:
        """Failures in a row when the circuit opened."""
    @property
    def opened_at(self) -> float:
        """When it opened: seconds since the epoch."""
    @property
    def last_error(self) -> tuple[str, str] | None:
        """(type name, text) of the exception that opened it; None if opened by hand."""
    @property
    def cause(self) -> str:
        """Which rule opened it, as the reason of the event says."""
    @property
    def detail(self) -> str | None:
        """What a rule of the user's said, or the reason given by hand."""

# --- breaker --------------------------------------------------------------------------------------

# (breaker's id, generation, at_ns, wall_ns, from, to, reason, is_shadow, pid, detail)
_ToldEvent = tuple[int, int, int, int, str, str, str, bool, int, str | None]

class ManualClock:
    """A clock for tests: it stands still until advanced."""

    def __init__(self, start: float = 0.0) -> None: ...
    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
    def now(self) -> float:
        """Seconds."""

class EventQueue:
    """The transitions of breakers, until somebody reads them."""

    def __init__(self, wake: Callable[[], object]) -> None: ...
    def arm(self) -> None:
        """Ask to be woken by the next event; then read."""
    def pushed(self) -> int:
        """How many events there ever were."""
    def read(self, *, after: int, skip: bool) -> tuple[list[_ToldEvent], int, int, bool]:
        """(events, position to go on from, events lost, whether it stopped at one that is being
        written); `skip` leaves such a one out.
        """

class Policy:
    """The rules of a Breaker and the user's functions in them. Times in seconds."""

    def __init__(self, **rules: Any) -> None: ...

class Breaker:
    """The native half of a CircuitBreaker. Times in seconds."""

    def __init__(
        self,
        *,
        name: str,
        policy: Policy,
        clock: ManualClock | None,
        counts_suspended_time: bool = False,
        events: EventQueue,
        segment: Segment | None = None,
        index: int = 0,
    ) -> None: ...
    def adopt(self, policy: Policy) -> None:
        """From now on calls go by these rules; those in flight go on by theirs."""
    def publish(self) -> dict[str, Any] | None:
        """Publish the numbers of the present rules to all processes, under the file's lock.

        Returns what was published before, if it was something else.
        """
    def follow(self) -> bool:
        """Adopt the numbers that were published last; whether they were news."""
    @property
    def followed(self) -> int:
        """The version of the published numbers that apply here."""
    def rules(self) -> dict[str, Any]:
        """The numbers of the present rules, by name."""
    def move(self, segment: Segment, index: int) -> None:
        """From now on lie there: the segment so far has lost its name. Needs the GIL."""
    def announce_other_rules(self) -> None:
        """Tell the event of it."""
    def set_prober_is_stuck(self, is_stuck: bool) -> None:
        """Whether calls are to probe because the active probes hang."""
    @property
    def id(self) -> int:
        """The breaker's number in its events."""
    def now(self) -> float:
        """Seconds of the breaker's clock."""
    def counters(self) -> tuple[int, int, int]:
        """(rejections, slow calls, stale results) ever."""
    def is_probe_due(self) -> bool:
        """Whether the active probe is to run now."""
    def snapshot(self) -> dict[str, Any]:
        """Everything that is known now, by name."""
    def state(self) -> str:
        """The State's name as a call would meet it; consumes no probe."""
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0.0 if one may now."""
    def failure_count(self) -> int:
        """Failures in a row, failed probes included."""
    def trip(self, retry_after: float | None, reason: str | None) -> None:
        """Open now, for so many seconds; None: the configured wait."""
    def force_open(self, seconds: float | None, reason: str | None) -> None:
        """Reject every call for so many seconds; None: until released."""
    def disable(self, seconds: float | None, reason: str | None) -> None:
        """Admit every call, count none; None: until released."""
    def release(self) -> None:
        """Give control back to the rules."""
    def reset(self) -> None:
        """Close now."""
    def after_fork(self, pid: int) -> None:
        """In a forked child: give up the parent's probes, draw other waits."""

@final
class Attempt:
    """One admitted call: give it a verdict, or use it in a `with` statement."""

    def __new__(cls, core: Breaker, as_prober: bool = False, /) -> Attempt: ...
    def success(self) -> None:
        """The dependency answered well."""
    def failure(self, exception: BaseException | None = None, /) -> None:
        """The dependency failed; `exception`, if given, is told by later rejections."""
    def neutral(self) -> None:
        """Nothing is known about the dependency."""
    def __enter__(self) -> Attempt: ...
    def __exit__(self, *args: object) -> bool: ...

@final
class ProbeLink:
    """That the running code is part of a probe: what a ContextVar holds meanwhile."""

@final
class Guard(Generic[_P, _R]):
    """A function behind a circuit breaker."""

    def __new__(
        cls,
        function: Callable[_P, _R],
        core: Breaker,
        owner: object,
        form: int,
        on_reject: Callable[..., object] | None = None,
    ) -> Guard[_P, _R]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    @property
    def __wrapped__(self) -> Callable[_P, _R]: ...
    @property
    def breaker(self) -> Any:
        """The CircuitBreaker that guards the function."""

@final
class GuardedCoroutine(Generic[_R]):
    """A coroutine behind a circuit breaker: admitted at the first send, judged at the end."""

    def __await__(self) -> Generator[Any, Any, _R]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any:
        """Resume the coroutine with a value."""
    def throw(self, *args: Any) -> Any:
        """Resume the coroutine with an exception."""
    def close(self) -> None:
        """Stop the coroutine; says nothing to the breaker."""

@final
class GuardedGenerator(Generic[_R]):
    """A generator behind a circuit breaker: admitted at the first next, judged at the end."""

    def __iter__(self) -> GuardedGenerator[_R]: ...
    def __next__(self) -> _R: ...
    def send(self, value: Any, /) -> _R:
        """Resume it with a value."""
    def throw(self, *args: Any) -> _R:
        """Resume it with an exception."""
    def close(self) -> None:
        """Stop it; says nothing to the breaker."""

@final
class GuardedAsyncGenerator(Generic[_R]):
    """An asynchronous generator behind a circuit breaker."""

    def __aiter__(self) -> GuardedAsyncGenerator[_R]: ...
    def __anext__(self) -> AsyncGeneratorStep: ...
    def asend(self, value: Any, /) -> AsyncGeneratorStep:
        """Resume it with a value."""
    def athrow(self, *args: Any) -> AsyncGeneratorStep:
        """Resume it with an exception."""
    def aclose(self) -> AsyncGeneratorStep:
        """Stop it; says nothing to the breaker."""

@final
class AsyncGeneratorStep:
    """What one step of a guarded asynchronous generator is awaited by."""

    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any:
        """Resume the step with a value."""
    def throw(self, *args: Any) -> Any:
        """Resume the step with an exception."""
    def close(self) -> None:
        """Give the step up."""

@final
class trampoline(Generic[_P, _R]):
    """An empty wrapper: what any native decorator costs at least."""

    def __new__(cls, function: Callable[_P, _R]) -> trampoline[_P, _R]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...

# --- segment --------------------------------------------------------------------------------------

SEGMENT_BYTES: int
SEGMENT_VERSION: int
SEGMENT_BREAKERS: int
SEGMENT_SLOTS: int
SEGMENT_LAYOUT: dict[str, tuple[int, int]]
BREAKERS_CAN_MOVE: bool

class Segment:
    """A mapped file that the processes of a host share. Times in seconds."""

    def __init__(self, mapped: Any) -> None:
        """`mapped`: a buffer of SEGMENT_BYTES, kept mapped as long as this lives."""
    @staticmethod
    def format(
        mapped: Any, *, boot_id: bytes, time_namespace: int, pid_namespace: int, random_id: int
    ) -> None:
        """Make a segment of zeros that nobody else has mapped."""
    def fault(self, *, boot_id: bytes, time_namespace: int, pid_namespace: int) -> str | None:
        """Why it cannot be used here: damaged, other_boot, other_time_namespace; or None."""
    @property
    def is_writable(self) -> bool:
        """Whether it is mapped to be written."""
    def claim_slot(self, pid_namespace: int) -> None:
        """Take a slot for this process; in a forked child, another than the parent's."""
    def release_slot(self) -> None:
        """Give the slot back."""
    def forget_slot(self) -> None:
        """In a forked child: the slot is the parent's."""
    @property
    def slot(self) -> int | None:
        """The slot of this process; None: all were taken."""
    def beat(self) -> None:
        """This process lives."""
    def claim_breaker(self, name: str) -> int | None:
        """The breaker's place, a free one at first; None: full. Under the file's lock."""
    def breaker_names(self) -> dict[int, str]:
        """The breakers by their place."""
    def rules(self, index: int) -> dict[str, Any] | None:
        """The published numbers of a breaker's rules; None: nothing legal is there."""
    def snapshot(self, index: int) -> dict[str, Any]:
        """Everything that is known of a breaker now, by name."""
    def workers(self) -> list[dict[str, Any]]:
        """The slots that were ever used."""
    def worker(self, slot: int) -> dict[str, Any] | None:
        """One of workers(); None: never used. Raises IndexError: there is no such slot."""
    def push_sample(self, sample: tuple[Any, ...]) -> bool:
        """Keep a memory sample, SAMPLE_FIELDS, in this process's history; False without a slot."""
    def history(self, slot: int) -> list[tuple[tuple[Any, ...], int, int]]:
        """[(sample, pid, generation)] of a slot's owners, oldest first."""
    def set_requests(self, total: int) -> bool:
        """So many were served by this process so far; False without a slot.

        The count of a slot never falls: the next owner goes on from where this one has ended.
        """
    def set_memory_limit(self, limit_bytes: int | None) -> bool:
        """What memory of this process runs into, None: unknown; False without a slot."""
    def set_learnt(
        self,
        *,
        state: str,
        cause: str,
        rate_mb_per_hour: float | None,
        mb_per_1000_requests: float | None,
        mb_per_load: float | None,
        baseline_mb: float | None,
        retained_mb: float | None,
        warm_up_minutes: float | None,
        requests: int | None,
    ) -> bool:
        """Keep for a successor what this process has learnt; False without a slot.

        Raises ValueError: an unknown state or cause, an amount that is not from 0 to 2**43 MB.
        """
    def learnt(self, slot: int) -> dict[str, Any] | None:
        """What the owners of a slot have learnt, by name; None: nothing, or nothing legal."""
    def begin_worker(self, number: int, *, predecessor: int | None = None) -> bool:
        """This process is the worker of this number, "starting"; False without a slot.

        `predecessor`: the slot of the worker that it relieves.
        """
    def set_worker_state(self, state: str) -> bool:
        """starting, warming, ready, draining or ended; False without a slot.

        Raises ValueError: another state.
        """
    def beat_loop(self) -> bool:
        """The event loop of this worker runs; False without a slot."""
    def tell_work(
        self, *, requests: int, in_flight: int, connections: int, inputs: int, tokens: int
    ) -> bool:
        """What this process has done so far, and has in hand; False without a slot.

        Requests, inputs and tokens are totals of the process; they never fall.
        """
    def tell_memory(self, *, private_bytes: int, own_bytes: int) -> bool:
        """The memory of this process now; False without a slot."""
    def tell_forecast(self, seconds: float | None) -> bool:
        """In how many seconds memory may meet its limit, None: no forecast; False without a slot.

        Raises ValueError: a number that is none, or below 0.
        """
    def events_pushed(self) -> int:
        """How many events there ever were."""
    def read_events(self, *, after: int, skip: bool) -> tuple[list[_ToldEvent], int, int, bool]:
        """As EventQueue.read(); a breaker's number is its place."""
    def header(self) -> dict[str, Any]:
        """Who made it, when, how large."""

# --- memory ---------------------------------------------------------------------------------------

HAS_NATIVE_PROBE: bool
SAMPLE_FIELDS: tuple[str, ...]

class Probe:
    """Reads the memory of this process. Any thread; also in the child of a fork."""

    def __init__(self, *, load: LoadGauge | None = None, root: str = "") -> None:
        """`load` is read with each sample; another `root` before /proc and /sys is for tests."""
    def sample(self) -> tuple[Any, ...]:
        """SAMPLE_FIELDS of now; None for what cannot be read. The GIL is released.

        About 5 us, and 15 us more for the figures of the control group. `python_blocks` and
        `gpu_bytes` are not read here: they need the GIL.
        """
    def cheap_sample(self) -> tuple[Any, ...]:
        """As sample(), of the control group its usage alone. About 5 us."""
    def rss_bytes(self) -> int | None:
        """The resident set; None if it cannot be read. About 1 us."""
    def retry_malloc(self) -> None:
        """Read malloc's figures again, if they were given up as dear."""

class Sampler:
    """A native thread that samples at an interval and needs no GIL.

    Any thread may call anything. In the child of a fork it only forgets the parent's thread.
    """

    def __init__(self, interval: float, capacity: int, load: LoadGauge | None = None) -> None:
        """`interval` in seconds; the newest `capacity` samples are kept."""
    def start(self) -> None:
        """Start the thread, once; it samples at once. Raises RuntimeError without a thread."""
    def stop(self) -> None:
        """End the thread, wait for it; in a forked child forget it. Idempotent and final."""
    def wait_for_sample(self, after: int, timeout: float) -> bool:
        """Wait until more than `after` samples were taken: True.

        False when `timeout` seconds are over or the sampler is stopped. The GIL is released.
        """
    def failures(self) -> int:
        """How many reads failed although they were tried again."""
    def retry_malloc(self) -> None:
        """Read malloc's figures again, if they were given up as dear."""
    def samples_after(self, after: int) -> tuple[list[tuple[Any, ...]], int]:
        """The samples with numbers from `after` that are still kept, oldest first.

        And the number to ask with next.
        """

class CallBudget:
    """How often a call may be made that can become dear. One thread at a time."""

    def __init__(self) -> None: ...
    def due(self) -> bool:
        """Asked once per sample: make the call for this one?"""
    def record(self, cost_ns: int) -> None:
        """What the call has cost."""

# --- evidence and actions -------------------------------------------------------------------------

HAS_ALLOCATION_PROFILE: bool

def start_allocation_profile(*, seconds: float, interval_bytes: int = 524288) -> None:
    """Sample allocations of Python for `seconds`, one in `interval_bytes` on average.

    Raises RuntimeError, with the reason, where that cannot be done.
    """

def stop_allocation_profile() -> dict[str, Any] | None:
    """End the profile: what was sampled and is alive, by stack. None if none was started.

    Seconds, stacks, samples, dropped, elsewhere, sampling_seconds. A row of `stacks` is (bytes,
    bytes of the first half of the profile, samples, ((function, file, line), ...)).
    """

def forget_allocation_profile() -> None:
    """In the child of a fork: end the parent's profile without looking at it."""

def malloc_trim() -> bool | None:
    """Ask the allocators to give free memory back: whether they did; None: no such allocator.

    The GIL is released. glibc's malloc, jemalloc and mimalloc; the latter two do not tell, and
    True says that they were asked.
    """

# --- signals --------------------------------------------------------------------------------------

def python_arena_bytes() -> int | None:
    """Bytes in the arenas of CPython's allocator of small objects, of all interpreters.

    None where they are not counted: without the GIL, with PYTHONMALLOC=malloc, where the object
    allocator was replaced before the import, on Windows.
    """

def allocator_name() -> str:
    """The malloc of this process: "glibc", "jemalloc", "mimalloc" or "unknown"."""

class LoadGauge:
    """How much is in flight now, in a unit of the user's: requests, bytes, tokens.

    Any thread, no lock. The child of a fork goes on with its parent's value: set(0) there.
    """

    def __init__(self) -> None: ...
    def set(self, value: float) -> None:
        """So much is in flight. Raises ValueError if it is not finite."""
    def add(self, by: float) -> None:
        """So much more is in flight, or less; from 0 if nothing was set. Raises ValueError."""
    @property
    def value(self) -> float | None:
        """None until something was set."""

@final
class RequestCounter:
    """Counts requests, and each in flight as a load of 1 in a gauge. Any thread, no lock.

    Raises TypeError if `gauge` is no LoadGauge.
    """

    def __new__(cls, gauge: LoadGauge) -> RequestCounter: ...
    def begin(self) -> int:
        """A request begins; the number is for its end()."""
    def end(self, begun: int, /) -> None:
        """A request ends; nothing in a process that was forked since."""
    def add(self, count: int, /) -> None:
        """So many more were served. Raises TypeError, OverflowError."""
    def reset(self) -> None:
        """In the child of a fork: as if nothing was counted."""
    @property
    def value(self) -> int | None:
        """How many were served; None until one was."""
    @property
    def ended_ns(self) -> int:
        """When the newest ended, on the monotonic clock up to 10 ms early; 0: none did."""

# --- ring -----------------------------------------------------------------------------------------

@final
class RingBuffer:
    """The newest `capacity` numbers, as float64. Any thread may push and read.

    Raises TypeError if `capacity` is no int, ValueError if it is not from 1 to 2**27.
    """

    def __new__(cls, capacity: int) -> RingBuffer: ...
    def push(self, value: float, /) -> None:
        """Append a number; a full ring drops its oldest."""
    def snapshot(self) -> npt.NDArray[np.float64]:
        """The values as a new array, oldest first. Imports numpy."""
    def __len__(self) -> int: ...
    @property
    def capacity(self) -> int:
        """How many values are kept at most."""
    @property
    def pushed(self) -> int:
        """How many values were ever pushed."""

# --- supervision ----------------------------------------------------------------------------------

if sys.platform == "linux":
    def private_bytes() -> int:
        """What this process alone is charged for: anonymous, shared memory and swapped out.

        About 20 us. Raises RuntimeError: /proc cannot be read.
        """

    def set_parent_death_signal(signal: int) -> None:
        """This process gets it when the thread that has started it ends; 0: none.

        One whose parent has ended before gets none: compare os.getppid() afterwards. Not handed
        down to children. Raises OSError: no such signal.
        """

    def become_subreaper() -> None:
        """Orphans among the descendants of this process become its children.

        Raises OSError.
        """

    class Watchdog:
        """A native thread that looks after a worker which may hang, with or without the GIL.

        Any thread may call anything. In the child of a fork it only forgets the parent's thread.
        """

        def __init__(
            self,
            *,
            control_fd: int,
            message: bytes,
            supervisor_pidfd: int,
            grace: float,
            interval: float = 0.1,
            segment: Segment | None = None,
        ) -> None:
            """It looks every `interval` seconds.

            Over the ceiling (see watch_memory()) the slot of this process says so, as long as it
            is, and `message` is sent on `control_fd` once: whole, without waiting, and again at
            the next look if the queue is full.

            If the supervisor has ended, this process is killed `grace` seconds later, with its
            process group if it leads one. Both descriptors are the caller's, and stay open until
            stop().

            Raises ValueError: a descriptor that is not open, an empty message, a read-only
            segment, grace < 0, interval < 0.001.
            """
        def start(self) -> None:
            """Start the thread, once; it looks at once. Raises RuntimeError without a thread."""
        def stop(self) -> None:
            """End the thread and wait for it; in a forked child, forget it. Final."""
        def watch_memory(self, hard_bytes: int | None, offset_bytes: int) -> None:
            """Own memory, private_bytes() less `offset_bytes`, may be `hard_bytes`.

            None: it is not watched. A message that was sent is not sent again. Raises ValueError:
            hard_bytes <= 0.
            """
