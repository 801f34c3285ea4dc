"""`CircuitBreaker`: the face of the native breaker.

The state lives in one atomic word of the native core; a guarded call that is healthy only reads it.
Any thread or task may use a breaker at any time; no method blocks, and no lock is held while a
guarded function runs. Time is the monotonic clock, read natively, or a `ManualClock` in tests.
"""

from __future__ import annotations

import functools
import logging
import os
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast

from memguard_native import _core
from memguard_native.breaker import events, host, live_rules, probing, registry, trip_rules
from memguard_native.breaker.config import (
    BreakerConfig,
    Ignorable,
    check_period,
    checked_reason,
)
from memguard_native.breaker.forms import (
    call_and_await,
    check_callable,
    close_unstarted,
    form_of,
    with_timeout,
)
from memguard_native.breaker.live_rules import LiveRules
from memguard_native.breaker.snapshot import BreakerSnapshot
from memguard_native.breaker.trip_rules import Asked, Rule
from memguard_native.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
Clock = _core.ManualClock | Literal["monotonic", "boottime"]

logger = logging.getLogger("memguard_native.breaker")


class State(StrEnum):
    """What a call would meet.

    Closed: it runs. Open: it is rejected. Half-open: one probe runs, the rest are rejected.
    Forced open and disabled are set by hand: rejected, or run without being counted. Shadow: it
    runs, whatever the rules say.
    """

    closed = "closed"
    half_open = "half_open"
    open = "open"
    forced_open = "forced_open"
    disabled = "disabled"
    shadow = "shadow"


class CircuitBreaker:
    """Stops calls to a dependency that fails, and lets a single probe find out when it is back.

    Use it as a decorator of functions, coroutine functions, generator functions of both kinds, and
    methods; one breaker may guard any number of them. After `failure_threshold` failures in a row
    the circuit opens and calls raise `CircuitOpenError` at once. After `reset_timeout` seconds the
    next call is admitted as a probe: if it succeeds the circuit closes, if it fails it opens again,
    and if it does neither within `probe_timeout` seconds another caller may probe.

    A failure is an `Exception` that the guarded function raises. Cancellation, KeyboardInterrupt,
    SystemExit, GeneratorExit, RecursionError, MemoryError and the CircuitOpenError of another
    breaker are neutral. A result that arrives after the circuit changed its state is ignored.

    Args:
        name: 1 to 120 bytes of printable text. It shows in errors and metrics: no secrets.
        failure_threshold: failures in a row that open the circuit, from 1; None: the rule is off.
        reset_timeout: seconds that it stays open, from 0.001 to 30 days.
        failure_rate: the share of failed calls, up to 1, that opens the circuit as well, over the
            newest `count_window` calls and over the last `time_window` seconds. Judged when a
            call fails or is slow, from `minimum_calls` on.
        slow_rate: the same for calls that took `slow_call_duration` seconds or longer, whatever
            became of them: a dependency that hangs until its callers give up is found by this.
        slow_call_duration: see `slow_rate`; required by it.
        count_window: calls, from 1 to 10000.
        time_window: seconds, from 1 to 86400, in 16 steps; default no such window.
        minimum_calls: default 20, or `count_window`.
        count_calls: whether successes are counted, for `snapshot()` and metrics; default where a
            rule needs it. Costs 1 to 2 ns a call.
        trip_if: rules of your own: functions of a `BreakerSnapshot` that say why the circuit is to
            open, asked after each failure; `TripRule`s that say when they are asked; `pile_up`,
            `budget`. One or several.
        lump_interval: seconds after a counted failure in which others belong to the same incident:
            they count as one. 0: each counts.
        success_threshold: successful probes that close it, from 1 to 31.
        half_open_max: probes that may run at once, from 1 to 63.
        probe_timeout: seconds that a probe may hold its slot, from 0.016 to 64800; default
            `reset_timeout`. What it finds out later is ignored.
        probe_expiry: what a probe that overran them means: "retry" lets the next caller probe,
            "failure" opens the circuit again.
        probe: `f()`, or a coroutine function, that finds out whether the dependency is back: run on
            a thread of its own when it is due, judged as a call is. Calls are then never probes.
        monitor_interval: how often, in seconds, somebody looks whether `probe` is due.
        backoff_factor: how much longer each further open period is, from 1: reset_timeout *
            backoff_factor ** reopenings since the last closing.
        max_reset_timeout: the longest open period in seconds; default 300 or `reset_timeout`.
        jitter: spreads open periods, from 0 to 1, so that clients do not come back together.
        jitter_mode: "spread" draws from period * (1 +- jitter), "full" from 0 to the period,
            "equal" from its upper half; the last two ignore `jitter`.
        backoff: `f(attempt, last outcome)` gives the seconds to stay open in place of all that, or
            None. `attempt` counts reopenings since the last closing from 0; the outcome is the
            exception or the result of the call that opens, or None. May be asked without need.
        reopen_after: `f(exception or result)` gives the seconds that a failing dependency asked
            for (Retry-After), or None. They replace the open period, up to `max_reset_timeout`.
        ignore: exception types, and functions of an exception, that are neutral.
        failure_if: `f(exception)` says True: a failure, False: a success (the dependency did
            answer, as with a 404), None: neutral.
        failure_if_result: `f(result)` says True where a result means that the dependency failed.
        count_base_exceptions: whether KeyboardInterrupt, SystemExit and others that are no
            `Exception` are failures too. Cancellation and GeneratorExit never are.
        call_timeout: seconds after which a coroutine is cancelled; its caller gets a TimeoutError,
            which is a failure.
        fallback: answers a rejected call: a function of the same arguments, or a value.
        enforce: the share of the rules' rejections that are real, to roll a breaker out gradually;
            0 is shadow: it rejects nothing, and tells what it would have done.
        on_event: told every `BreakerEvent` of this breaker, on the event thread.
        inline_events: tell `on_event` on the thread that made the transition, before the call goes
            on. For tests and for what must not be late; a slow listener then delays that call.
        clock: "monotonic"; "boottime", which goes on while the machine is suspended, in scope
            "local" alone; or a `ManualClock`, for tests.
        scope: "local": this process's own. "host": one for all processes of this user that name
            it so, in memory that outlives them: state, windows, counters and the numbers among the
            rules, of which the newest given count. Functions stay each process's own. On systems
            without that, or without room for it, it is local, and a warning says why.
        namespace: what such processes have in common; default `MEMGUARD_NAMESPACE` or "default".

    The user's functions run off the healthy path, may use any breaker, and cannot disturb a call:
    what they raise is counted and logged once.

    Raises:
        ConfigError: an argument is of the wrong type or out of its range.
        SegmentError: the shared file is somebody else's, or open to others.
    """

    def __init__(
        self,
        name: str,
        failure_threshold: int | None = 5,
        reset_timeout: float = 60.0,
        *,
        failure_rate: float | None = None,
        slow_rate: float | None = None,
        slow_call_duration: float | None = None,
        count_window: int = 100,
        time_window: float | None = None,
        minimum_calls: int | None = None,
        count_calls: bool | None = None,
        trip_if: Asked | Rule | tuple[Asked | Rule, ...] | None = (),
        lump_interval: float = 0.0,
        success_threshold: int = 1,
        half_open_max: int = 1,
        probe_timeout: float | None = None,
        probe_expiry: str = "retry",
        probe: Callable[[], object] | None = None,
        monitor_interval: float = 1.0,
        backoff_factor: float = 1.0,
        max_reset_timeout: float | None = None,
        jitter: float = 0.0,
        jitter_mode: str = "spread",
        backoff: Callable[[int, Any], float | None] | None = None,
        reopen_after: Callable[[Any], float | None] | None = None,
        ignore: Ignorable | tuple[Ignorable, ...] = (),
        failure_if: Callable[[BaseException], bool | None] | None = None,
        failure_if_result: Callable[[Any], object] | None = None,
        count_base_exceptions: bool = False,
        call_timeout: float | None = None,
        fallback: object = None,
        enforce: float = 1.0,
        on_event: events.Listener | None = None,
        inline_events: bool = False,
        clock: Clock = "monotonic",
        scope: str = "local",
        namespace: str | None = None,
    ) -> None:
        config = BreakerConfig(
            name=name,
            failure_threshold=failure_threshold,
            reset_timeout=reset_timeout,
            failure_rate=failure_rate,
            slow_rate=slow_rate,
            slow_call_duration=slow_call_duration,
            count_window=count_window,
            time_window=time_window,
            minimum_calls=minimum_calls,
            count_calls=count_calls,
            trip_if=trip_if,
            lump_interval=lump_interval,
            success_threshold=success_threshold,
            half_open_max=half_open_max,
            probe_timeout=probe_timeout,
            probe_expiry=probe_expiry,
            probe=probe,
            monitor_interval=monitor_interval,
            backoff_factor=backoff_factor,
            max_reset_timeout=max_reset_timeout,
            jitter=jitter,
            jitter_mode=jitter_mode,
            backoff=backoff,
            reopen_after=reopen_after,
            ignore=ignore,
            failure_if=failure_if,
            failure_if_result=failure_if_result,
            count_base_exceptions=count_base_exceptions,
            call_timeout=call_timeout,
            fallback=fallback,
            enforce=enforce,
            on_event=on_event,
            inline_events=inline_events,
            scope=scope,
            namespace=namespace,
        )
        self._set_up(config, clock, publishes=True)

    def _set_up(
        self,
        config: BreakerConfig,
        clock: Clock,
        *,
        publishes: bool,
        place: host.Place | None = None,
    ) -> None:
        manual = clock if isinstance(clock, _core.ManualClock) else None
        if manual is None and clock not in ("monotonic", "boottime"):
            raise ConfigError("clock", clock, "must be 'monotonic', 'boottime' or a ManualClock")
        if config.scope != "local" and clock == "boottime":
            allowed = "must be 'monotonic' or a ManualClock in scope 'host'"
            raise ConfigError("clock", clock, allowed)
        place = host.place_for(config) if place is None else place
        # Weakly: else each breaker were a cycle for the collector.
        follow_config = weakref.WeakMethod(self._follow_config)
        self._rules = LiveRules(
            config, place, lambda: follow() if (follow := follow_config()) else None
        )
        self._core = self._rules.core = _core.Breaker(
            name=config.name,
            policy=self._rules.policy,
            clock=manual,
            counts_suspended_time=clock == "boottime",
            events=events.queue,
            **({} if place is None else place.arguments()),
        )
        events.register(self, self._core, config.name)
        if place is not None:
            host.watch(self, place)
            if publishes:
                self._rules.join()
            else:
                self._rules.join_or_follow()
        self._follow_config()
        _living.add(self)
        registry.add(self)

    @classmethod
    def from_config(cls, config: BreakerConfig, *, clock: Clock = "monotonic") -> CircuitBreaker:
        """A breaker with the rules of `config`, `BreakerConfig.recommended(name)` for one."""
        return cls(**config.given(), clock=clock)

    @classmethod
    def attach(cls, name: str, namespace: str | None = None) -> CircuitBreaker:
        """The breaker of scope "host" that other processes have made, by the rules that they share.

        To look at it and to act on it by hand; their rules stay. The namespace is that of
        `CircuitBreaker`. It makes neither a breaker nor a segment, and is never local.

        Raises:
            ConfigError: there is no breaker of this name.
            SegmentError: there is no segment of this namespace, or it cannot be used or is locked.
        """
        place, rules = host.place_of_published(name, namespace)
        breaker = cls.__new__(cls)
        config = BreakerConfig(name=name, scope="host", namespace=namespace, **rules)
        breaker._set_up(config, "monotonic", publishes=False, place=place)
        return breaker

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._rules.config.name

    @property
    def config(self) -> BreakerConfig:
        """The rules that calls go by which begin now."""
        self._rules.follow()
        return self._rules.config

    @property
    def scope(self) -> str:
        """ "local" or "host"; what it is, where the one asked for is not to be had."""
        return "local" if self._rules.place is None else "host"

    @property
    def state(self) -> State:
        """The state that a call would meet now. Reading it never uses up the probe."""
        self._rules.follow()
        return State(self._core.state())

    @property
    def failure_count(self) -> int:
        """Failures in a row; goes on counting through failed probes and is 0 after closing."""
        return self._core.failure_count()

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0.0 if one may now."""
        self._rules.follow()
        return self._core.retry_after()

    def snapshot(self) -> BreakerSnapshot:
        """Everything that is known now: state, counters, the newest opening."""
        self._rules.follow()
        return BreakerSnapshot.of(self.name, self._core.snapshot())

    # --- guarding ------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard `function`: the decorator.

        Raises TypeError for what cannot be guarded as a call: classes.
        """
        if isinstance(function, (staticmethod, classmethod)):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if isinstance(function, type):
            raise TypeError(f"cannot guard the class {function!r}: guard its methods")
        return self._guard(function)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` under this breaker; for a coroutine function, return its awaitable.

        Raises CircuitOpenError at once (an awaitable: when it is awaited) if the circuit is open;
        coroutines among the arguments that were not started are then closed.
        """
        return self._guard(function, close_unstarted)(*args, **kwargs)

    def call_async(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]:
        """Await what a plain function returns: the call and the wait are one guarded call.

        For a lambda, a partial, or a method of a client library that returns an awaitable without
        being a coroutine function. Raises CircuitOpenError when it is awaited.
        """
        check_callable(function)
        guarded = self._guard(functools.partial(call_and_await, function), close_unstarted)
        return cast("Awaitable[R]", guarded(*args, **kwargs))

    def attempt(self) -> _core.Attempt:
        """Ask for admission now; give the verdict by a `with` statement or by its methods.

        `with breaker.attempt() as attempt:` judges by the exception that leaves the block, unless
        `attempt.success()`, `.failure(exception)` or `.neutral()` was called before: the first
        verdict wins. Dropped without one, it is neutral. It may end on another thread.

        Raises CircuitOpenError.
        """
        return _core.Attempt(self._core)

    def __enter__(self) -> CircuitBreaker:
        """As `attempt()`, without the object: dearer, because each task needs its own."""
        attempt = self.attempt()
        _entered.set((self, attempt, _entered.get()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        innermost = _entered.get()
        if innermost is None or innermost[0] is not self:
            raise RuntimeError(f"{self!r} was not entered last in this task or thread")
        _entered.set(innermost[2])
        innermost[1].__exit__(kind, error, traceback)

    async def __aenter__(self) -> CircuitBreaker:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _guard(
        self,
        function: Callable[P, R],
        on_reject: Callable[..., object] | None = None,
    ) -> _core.Guard[P, R]:
        check_callable(function)
        form = form_of(function)
        if self._rules.config.call_timeout is not None:
            function = with_timeout(function, form, lambda: self._rules.config.call_timeout)
        return _core.Guard(function, self._core, self, form, on_reject)

    # --- by hand -------------------------------------------------------------------------------

    def trip(self, retry_after: float | None = None, reason: str | None = None) -> None:
        """Open the circuit now, for `retry_after` seconds; default `reset_timeout`.

        `reason`, here and below, is told with the event and by the errors of rejected calls.
        Nothing happens while it is forced open or disabled. Raises ConfigError.
        """
        check_period("retry_after", retry_after)
        self._core.trip(retry_after, checked_reason(reason))

    def reset(self) -> None:
        """Close the circuit now. Results of calls that are still running are ignored."""
        self._core.reset()

    def force_open(self, for_: float | None = None, reason: str | None = None) -> None:
        """Reject every call, for `for_` seconds or until `auto()`; the next call is then a probe.

        Raises ConfigError.
        """
        check_period("for_", for_)
        self._core.force_open(for_, checked_reason(reason))

    def disable(self, for_: float | None = None, reason: str | None = None) -> None:
        """Let every call run and count none, for `for_` seconds or until `auto()`; then closed.

        Raises ConfigError.
        """
        check_period("for_", for_)
        self._core.disable(for_, checked_reason(reason))

    def shadow(self) -> None:
        """Reject nothing from now on, and tell what the rules would have done: `enforce=0`."""
        enforce = self.config.enforce
        if enforce > 0:
            self._rules.change({"enforce": 0.0}, enforce_by_auto=enforce)

    def auto(self) -> None:
        """End what `force_open()`, `disable()` or `shadow()` began; else nothing happens."""
        if self.config.enforce != self._rules.enforce_by_auto:
            self.configure(enforce=self._rules.enforce_by_auto)
        self._core.release()

    def configure(self, **changes: Any) -> None:
        """Change rules while calls run: arguments of `CircuitBreaker`, all of them or none.

        Calls that begin afterwards go by the new rules, those in flight go on by theirs. The state
        and the count of failures stay; windows stay where their lengths do. In scope "host" the
        numbers apply in all processes.

        Raises ConfigError: a value is not allowed, or it cannot change: `name`, `scope`,
        `namespace`, and `call_timeout` of a breaker that was made without one.
        SegmentUnavailableError: another process holds the shared file's lock.
        """
        self._rules.change(changes)

    def _follow_config(self) -> None:
        config = self._rules.config
        listener = None if config.inline_events else config.on_event
        self._listening = events.listen(self._core.id, listener)
        if listener is not None and self._rules.place is not None:
            events.start_thread()  # what happens in other processes wakes nobody here
        if config.probe is not None:
            probing.watch(self, self._core)

    # --- identity ------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name and rules: where it is unpickled it is the breaker of that name."""
        return _restore, (self._rules.config,)

    def __copy__(self) -> CircuitBreaker:
        return self

    def __deepcopy__(self, memo: object) -> CircuitBreaker:
        """The same breaker: a copy of an object that holds one shares it."""
        return self

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state}>"


def _restore(config: BreakerConfig) -> CircuitBreaker:
    """The breaker of this name, scope and namespace, by the rules of now and not of the pickle."""

    def is_wanted(found: CircuitBreaker) -> bool:
        had = found._rules.config
        return (had.scope, had.namespace) == (config.scope, config.namespace)

    def make() -> CircuitBreaker:
        if config.scope == "local":
            return CircuitBreaker.from_config(config)
        restored = CircuitBreaker.__new__(CircuitBreaker)
        restored._set_up(config, "monotonic", publishes=False)
        return restored

    return registry.get_or_make(config.name, make, is_wanted)


# The `with breaker:` blocks that the running task or thread is inside of, innermost first.
_entered: ContextVar[Any] = ContextVar("memguard_entered", default=None)

_living: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    live_rules.renew_lock_after_fork()
    registry.renew_locks_after_fork()
    trip_rules.renew_locks_after_fork()
    probing.renew_after_fork()
    for breaker in _living:
        breaker._core.after_fork(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
