"""The native core. Written by hand; stubtest compares it with the module."""

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

# --- breaker --------------------------------------------------------------------------------------

class ManualClock:
    """A clock for tests: it stands still until advanced."""

    def __init__(self, start: float = 0.0) -> None: ...
    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
    def now(self) -> float:
        """Seconds."""

class Breaker:
    """The native half of a CircuitBreaker. Times in seconds."""

    def __init__(
        self,
        *,
        name: str,
        failure_threshold: int,
        reset_timeout: float,
        max_reset_timeout: float,
        probe_timeout: float,
        clock: ManualClock | None,
    ) -> None: ...
    def state(self) -> str:
        """ "closed", "open" or "half_open"; consumes no probe."""
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0.0 if one may now."""
    def failure_count(self) -> int:
        """Failures in a row, failed probes included."""
    def trip(self) -> None:
        """Open now."""
    def reset(self) -> None:
        """Close now."""
    def after_fork(self) -> None:
        """In a forked child: give up the parent's probes."""

@final
class Guard(Generic[_P, _R]):
    """A function behind a circuit breaker."""

    def __new__(
        cls,
        function: Callable[_P, _R],
        core: Breaker,
        owner: object,
        is_coroutine_function: bool,
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
class trampoline(Generic[_P, _R]):
    """An empty wrapper: what any native decorator costs at least."""

    def __new__(cls, function: Callable[_P, _R]) -> trampoline[_P, _R]: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...

# --- memory ---------------------------------------------------------------------------------------

HAS_NATIVE_PROBE: bool
SAMPLE_FIELDS: tuple[str, ...]

class Probe:
    """Reads the memory of this process. Any thread; also in the child of a fork."""

    def __init__(self) -> None: ...
    def sample(self) -> tuple[Any, ...]:
        """SAMPLE_FIELDS of now; None for what cannot be read. About 10 us, the GIL released."""
    def rss_bytes(self) -> int | None:
        """The resident set; None if it cannot be read. About 1 us."""

class Sampler:
    """A native thread that samples at an interval and needs no GIL.

    Any thread may call anything. In the child of a fork it only forgets the parent's thread.
    """

    def __init__(self, interval: float, capacity: int) -> None:
        """`interval` in seconds; the newest `capacity` samples are kept."""
    def start(self) -> None:
        """Start the thread, once; it samples at once. Raises RuntimeError without a thread."""
    def stop(self) -> None:
        """End the thread and wait for it; in a forked child, forget it. Idempotent and final."""
    def wait_for_sample(self, after: int, timeout: float) -> bool:
        """Wait until more than `after` samples were taken: True.

        False when `timeout` seconds are over or the sampler is stopped. The GIL is released.
        """
    def failures(self) -> int:
        """How many reads failed although they were tried again."""
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
