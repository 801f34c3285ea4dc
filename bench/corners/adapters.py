"""One adapter per library: its breaker behind the few words that the probes need.

Each is built as the library's own documentation does, and used through its decorator. Where the
defaults differ they are levelled: so many failures in a row open, one successful probe closes.
Libraries are imported when a breaker is made, so that a missing one matters to nobody else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from bench.rivals import NEVER, SimulatedOutageError, fail

# Long enough for what must happen while a circuit is open, short enough to be waited for.
SHORT_S = 0.2
# Nobody waits for this one: the circuit stays open while the probe looks at it.
LONG_S = 60.0


class IgnoredError(Exception):
    """What the user has told the breaker to ignore."""


async def fail_async() -> None:
    raise SimulatedOutageError


async def succeed_async() -> None:
    pass


def succeed() -> None:
    pass


class Breaker:
    """One breaker: opens after `failures` in a row, for `timeout` seconds, and knows IgnoredError.

    `asynchronous` says what it will guard; most libraries need not know. `listener` is called at
    each change of state, where the library `listens`.
    """

    name: str
    package: str
    listens = True

    def __init__(
        self,
        failures: int = 1,
        timeout: float = SHORT_S,
        asynchronous: bool = False,
        listener: Callable[[], None] = lambda: None,
    ) -> None:
        self.timeout = timeout
        self.listener = listener
        self.rejection: type[BaseException] = Exception
        self.make(failures, timeout, asynchronous)

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        """Build the library's own object, and set `rejection`."""
        raise NotImplementedError

    def guard(self, function: Any) -> Callable[..., Any]:
        raise NotImplementedError

    def guard_over(self, function: Any, seconds: int) -> Callable[..., Any]:
        """Guard by another breaker, which never opens, by the rate of failures in a window of time.

        Raises NotImplementedError: the library has no such window.
        """
        raise NotImplementedError

    def call(self, function: Callable[[], object]) -> object:
        """Call it once, without the decorator.

        Raises NotImplementedError: the library has no such method.
        """
        raise NotImplementedError

    def block(self) -> contextlib.AbstractContextManager[object]:
        """What a `with` statement takes.

        Raises NotImplementedError: the library has no context manager.
        """
        raise NotImplementedError

    def raw_state(self) -> object:
        raise NotImplementedError

    def retry_after(self, error: Any) -> float | None:
        """The seconds that a rejection tells; None: it tells nothing."""
        return None

    def own_retry_after(self) -> float | None:
        """The seconds that the breaker itself tells."""
        return None

    def let_time_pass(self) -> None:
        """Until the open period is over."""
        time.sleep(1.2 * self.timeout)

    # --- the same for all ----------------------------------------------------------------------

    def state(self) -> str:
        """closed, open or half-open; reading it changes nothing."""
        text = str(self.raw_state()).lower()
        if "half" in text:
            return "half-open"
        return "open" if "open" in text else "closed"

    def fail(self, times: int = 1) -> None:
        guarded = self.guard(fail)
        for _ in range(times):
            with contextlib.suppress(SimulatedOutageError, self.rejection):
                guarded()

    async def fail_async(self, times: int = 1) -> None:
        guarded = self.guard(fail_async)
        for _ in range(times):
            with contextlib.suppress(SimulatedOutageError, self.rejection):
                await guarded()

    def reject(self) -> BaseException | None:
        """The error of a call that is rejected; None if it runs."""
        try:
            self.guard(succeed)()
        except self.rejection as error:
            return error
        return None

    async def runs_async(self) -> bool:
        try:
            await self.guard(succeed_async)()
        except self.rejection:
            return False
        return True


class PyBreaker(Breaker):
    name = package = "pybreaker"

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from pybreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener

        listener = CircuitBreakerListener()
        listener.state_change = lambda *change: self.listener()

        self.rejection = CircuitBreakerError
        self.breaker = CircuitBreaker(
            fail_max=failures,
            reset_timeout=timeout,
            exclude=[IgnoredError],
            listeners=[listener],
        )

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.breaker(function)

    def call(self, function: Callable[[], object]) -> object:
        return self.breaker.call(function)

    def block(self) -> contextlib.AbstractContextManager[object]:
        return self.breaker.calling()

    def raw_state(self) -> object:
        return self.breaker.current_state


def _is_failure(kind: type[BaseException], error: BaseException) -> bool:
    # As by its default all of Exception, less what is to be ignored.
    return issubclass(kind, Exception) and not issubclass(kind, IgnoredError)


class CircuitBreakerPackage(Breaker):
    name = package = "circuitbreaker"
    listens = False

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from circuitbreaker import CircuitBreaker, CircuitBreakerError

        self.rejection = CircuitBreakerError
        self.breaker = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=timeout, expected_exception=_is_failure
        )

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.breaker(function)

    def call(self, function: Callable[[], object]) -> object:
        return self.breaker.call(function)

    def block(self) -> contextlib.AbstractContextManager[object]:
        return self.breaker

    def raw_state(self) -> object:
        return self.breaker.state

    def own_retry_after(self) -> float | None:
        return self.breaker.open_remaining


class AioBreaker(Breaker):
    name = package = "aiobreaker"

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from datetime import timedelta

        from aiobreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener

        listener = CircuitBreakerListener()
        listener.state_change = lambda *change: self.listener()

        self.rejection = CircuitBreakerError
        self.breaker = CircuitBreaker(
            fail_max=failures,
            timeout_duration=timedelta(seconds=timeout),
            exclude=[IgnoredError],
            listeners=[listener],
        )

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.breaker(function)

    def call(self, function: Callable[[], object]) -> object:
        return self.breaker.call(function)

    def raw_state(self) -> object:
        return self.breaker.current_state.name

    def retry_after(self, error: Any) -> float | None:
        return error.time_remaining.total_seconds() if error.reopen_time else None


class Purgatory(Breaker):
    name = package = "purgatory"

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory
        from purgatory.domain.model import OpenedState

        factory = AsyncCircuitBreakerFactory if asynchronous else SyncCircuitBreakerFactory
        self.rejection = OpenedState
        self.factory = factory(
            default_threshold=failures, default_ttl=timeout, exclude=[IgnoredError]
        )
        self.factory.add_listener(self._told)

    def _told(self, circuit: str, kind: str, event: object) -> None:
        if kind == "state_changed":
            self.listener()

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.factory("corner")(function)

    def block(self) -> contextlib.AbstractContextManager[object]:
        return self.factory.get_breaker("corner")

    def raw_state(self) -> object:
        # Straight from its memory: `get_breaker` is a coroutine function on the asynchronous side.
        context = self.factory.uow.contexts.breakers.get("corner")
        return context.state if context else "closed"


class _Classifier:
    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        return exception is not None and not isinstance(exception, IgnoredError)


class _InterlockListener:
    def __init__(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def on_state_change(self, **change: object) -> None:
        self._listener()


class Interlock(Breaker):
    name = package = "interlock-cb"

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from interlock import CircuitBreaker, CircuitOpenError, Config

        # It knows rates only: all of the last n calls is n in a row.
        config = Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=failures,
            window_size=failures,
            permitted_calls_in_half_open=1,
            wait_duration_in_open=timeout,
        )
        self.rejection = CircuitOpenError
        self.breaker = CircuitBreaker(
            name="corner",
            config=config,
            classifier=_Classifier(),
            listener=_InterlockListener(self.listener),
        )

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.breaker(function)

    def guard_over(self, function: Any, seconds: int) -> Callable[..., Any]:
        from interlock import CircuitBreaker, Config, WindowType

        config = Config(
            window_type=WindowType.TIME_BASED, window_size=seconds, minimum_number_of_calls=NEVER
        )
        return CircuitBreaker(name="window", config=config)(function)

    def call(self, function: Callable[[], object]) -> object:
        return self.breaker.call(function)

    def block(self) -> contextlib.AbstractContextManager[object]:
        return self.breaker

    def raw_state(self) -> object:
        return self.breaker.state.name

    def retry_after(self, error: Any) -> float | None:
        return error.retry_after


class Memguard(Breaker):
    name = "memguard"
    package = "memguard-native"

    def make(self, failures: int, timeout: float, asynchronous: bool) -> None:
        from memguard_native import CircuitBreaker, CircuitOpenError
        from memguard_native._core import ManualClock

        self.rejection = CircuitOpenError
        self.clock = ManualClock(start=1000.0)
        self.breaker = CircuitBreaker(
            "corner",
            failures,
            timeout,
            ignore=IgnoredError,
            clock=self.clock,
            on_event=lambda event: self.listener(),
        )

    def guard(self, function: Any) -> Callable[..., Any]:
        return self.breaker(function)

    def guard_over(self, function: Any, seconds: int) -> Callable[..., Any]:
        from memguard_native import CircuitBreaker

        return CircuitBreaker("window", failure_rate=0.5, time_window=float(seconds))(function)

    def call(self, function: Callable[[], object]) -> object:
        return self.breaker.call(function)

    def block(self) -> contextlib.AbstractContextManager[object]:
        return self.breaker

    def raw_state(self) -> object:
        return self.breaker.state

    def retry_after(self, error: Any) -> float | None:
        return error.retry_after

    def own_retry_after(self) -> float | None:
        return self.breaker.retry_after

    def let_time_pass(self) -> None:
        self.clock.advance(1.2 * self.timeout)


LIBRARIES: dict[str, type[Breaker]] = {
    library.name: library
    for library in (PyBreaker, CircuitBreakerPackage, AioBreaker, Purgatory, Interlock, Memguard)
}
