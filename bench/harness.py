"""Interleaved rounds, and what is read from them.

Every round runs all cases of a suite once, the baseline first, in one process: what a case adds
is its time minus the baseline's time *of the same round*. A busy neighbour or a change of clock
frequency then meets both sides. Rounds whose baseline was disturbed would make the difference
too small, so only the calmer half of the rounds (by the baseline's time) is used; of those the
minimum and the median are reported. Goals compare minima, unless the suite says otherwise.

A suite is a module with a docstring (its question), `GROUP`, and `suite(b)`, which declares cases
and budgets on a `Bench`, or measures by itself and calls `b.record()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bench import loops

CHUNK_NS = 3_000_000
# Threads that share an interpreter lock take turns of 5 ms: a chunk has to span several.
THREADED_CHUNK_NS = 20_000_000
FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Effort:
    """How much to measure: rounds of a run, seconds after which a run begins no round, and seconds
    within which all runs of a suite have to end.
    """

    rounds: int
    seconds: float
    quick: bool
    suite_seconds: float = math.inf


FULL = Effort(rounds=200, seconds=300.0, quick=False)
QUICK = Effort(rounds=40, seconds=15.0, quick=True, suite_seconds=60.0)


@dataclass
class Case:
    """One row: a chunk to time, or the reason why there is none."""

    name: str
    chunk: loops.Chunk | None = None
    package: str | None = None
    absent: str | None = None
    before: Callable[[], object] | None = None
    chunk_ns: int = CHUNK_NS
    passes: int = 1

    def calibrate(self) -> None:
        """Choose the passes so that a chunk takes about `chunk_ns`; this also warms the code."""
        assert self.chunk is not None
        while True:
            elapsed = max(self.chunk(self.passes), 1)
            if elapsed >= self.chunk_ns // 2:
                break
            self.passes = max(self.passes + 1, self.passes * min(10, self.chunk_ns // elapsed))
        self.passes = max(1, round(self.passes * self.chunk_ns / elapsed))

    def sample(self) -> float:
        """Nanoseconds of one call in one chunk."""
        assert self.chunk is not None
        if self.before is not None:
            self.before()
        return self.chunk(self.passes) / (self.passes * loops.UNROLLED)


@dataclass(frozen=True)
class Budget:
    """A goal: `case` minus `over`, in units of `ratio_to` minus `over`, within the limit."""

    case: str
    metric: str
    over: str | None
    ratio_to: str | None
    at_most: float | None
    at_least: float | None
    goal: str
    # Else a miss is told and fails no check.
    binding: bool = True

    def met(self, value: float | None) -> bool:
        if value is None or math.isnan(value):
            return False
        if self.at_most is not None and value > self.at_most:
            return False
        return self.at_least is None or value >= self.at_least

    def better(self, one: float | None, other: float | None) -> float | None:
        """The value that is nearer to the goal; None is a run in which it could not be judged."""
        values = [value for value in (one, other) if value is not None]
        if not values:
            return None
        return min(values) if self.at_most is not None else max(values)

    def limit(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        assert bound is not None
        inverse = round(1 / bound) if self.ratio_to and 0 < bound < 0.5 else 0
        if inverse and math.isclose(bound, 1 / inverse):
            return f"{sign} 1/{inverse}"
        return f"{sign} {bound:g}"

    def subject(self) -> str:
        text = self.case if self.over is None else f"{self.case} over {self.over}"
        return text if self.ratio_to is None else f"{text}, ratio to {self.ratio_to}"


@dataclass(frozen=True)
class Plane:
    """Two metrics against each other, for both of which less is better: a point for each case that
    has them, and lines of what one thing would change.
    """

    x: str
    y: str
    curves: dict[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Timeline:
    """What a case went through: a value for each step of seconds, None where there was none, and
    moments by what happened then.
    """

    label: str
    step: float
    values: Sequence[float | None]
    moments: dict[str, Sequence[float]]


@dataclass(frozen=True)
class Summary:
    """Minimum and median over the calm rounds."""

    minimum: float
    median: float


@dataclass
class Bench:
    """What a suite declares and what was measured for it. One object is one run."""

    effort: Effort = QUICK
    progress: Callable[[str], None] = lambda text: None
    cases: dict[str, Case] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    drawn: Plane | None = None
    counted: list[str] = field(default_factory=list)
    timelines: dict[str, Timeline] = field(default_factory=dict)
    baseline: str | None = None
    yardstick: str | None = None
    pin: bool = True
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    # What the cases need as long as they run: freed with them.
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _runner: asyncio.Runner | None = None

    # --- declared by suites -----------------------------------------------------------------

    def case(
        self,
        name: str,
        x: object,
        statement: str = "x()",
        *,
        package: str | None = None,
        awaits: bool = False,
        threads: int = 1,
        before: Callable[[], object] | None = None,
        **names: object,
    ) -> None:
        """Time `statement`; `x` and the names are local to it. The first case is the baseline.

        What awaits runs in a loop of `loop_factory`, by default asyncio's own.
        """
        local = {"x": x, **names}
        chunk_ns = CHUNK_NS
        if awaits:
            chunk = loops.awaiting(statement, local, self._event_loop())
        elif threads > 1:
            pool = self.resources.enter_context(ThreadPoolExecutor(threads))
            chunk, chunk_ns = loops.threaded(statement, local, pool, threads), THREADED_CHUNK_NS
            self.pin = False
        else:
            chunk = loops.plain(statement, local)
        self.add(Case(name, chunk, package=package, before=before, chunk_ns=chunk_ns))

    def add(self, case: Case) -> None:
        """Add a row; the first one that is timed becomes the baseline."""
        if case.name in self.cases:
            raise ValueError(f"two cases are called {case.name!r}")
        self.cases[case.name] = case
        if self.baseline is None and case.chunk is not None:
            self.baseline = case.name

    def absent(self, name: str, reason: str, package: str | None = None) -> None:
        """A row without a figure: a peer that is not installed or cannot do this."""
        self.add(Case(name, absent=reason, package=package))

    def record(self, case: str, metric: str, value: float, *, package: str | None = None) -> None:
        """Note one figure that the suite measured by itself."""
        if case not in self.cases:
            self.cases[case] = Case(case, package=package)
        self.samples.setdefault(metric, {}).setdefault(case, []).append(value)

    def plane(self, x: str, y: str) -> None:
        """Draw the cases in the plane of two metrics, in place of bars."""
        self.drawn = Plane(x, y)

    def curve(self, name: str, points: Sequence[tuple[float, float]]) -> None:
        """Add a line to the plane, through these points in their order."""
        assert self.drawn is not None  # declared before
        self.drawn.curves[name] = points

    def count(self, metric: str) -> None:
        """Draw this metric, from zero, as zero is the best of it; no other is drawn then."""
        self.counted.append(metric)

    def timeline(self, case: str, timeline: Timeline) -> None:
        """Draw what this case went through."""
        self.timelines[case] = timeline

    def budget(
        self,
        case: str,
        *,
        over: str | None = None,
        ratio_to: str | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        metric: str = "ns",
        goal: str = "",
        binding: bool = True,
    ) -> None:
        """Declare a goal; exactly one of `at_most` and `at_least` is its limit. One that is not
        `binding` is told as missed where it is, and fails no check.
        """
        if (at_most is None) == (at_least is None):
            raise ValueError("a budget has one limit: at_most or at_least")
        for name in (case, over, ratio_to):
            if name is not None and name not in self.cases:
                raise ValueError(f"the budget of {case!r} names {name!r}, which is no case")
        self.budgets.append(Budget(case, metric, over, ratio_to, at_most, at_least, goal, binding))

    # --- measured ---------------------------------------------------------------------------

    def run(self) -> None:
        """Run the rounds of the timed cases; free what they held."""
        timed = [case for case in self.cases.values() if case.chunk is not None]
        with self.resources:
            if timed:
                with _quiet_interpreter(self.pin):
                    self._rounds(timed)

    def _rounds(self, timed: Sequence[Case]) -> None:
        for case in timed:
            case.calibrate()
        samples = self.samples.setdefault("ns", {case.name: [] for case in timed})
        end = time.monotonic() + self.effort.seconds
        for done in range(self.effort.rounds):
            if done >= FEWEST_ROUNDS and time.monotonic() > end:
                break
            for case in timed:
                samples[case.name].append(case.sample())
            self.progress(f"round {done + 1} of {self.effort.rounds}")

    def _event_loop(self) -> asyncio.Runner:
        if self._runner is None:
            self._runner = self.resources.enter_context(
                asyncio.Runner(loop_factory=self.loop_factory)
            )
        return self._runner

    # --- read -------------------------------------------------------------------------------

    def rounds(self) -> int:
        return max((len(v) for rows in self.samples.values() for v in rows.values()), default=0)

    def summary(self, case: str, over: str | None = None, metric: str = "ns") -> Summary | None:
        """Figures of `case`, or of what it adds to `over`; None where either was not measured."""
        rows = self.samples.get(metric, {})
        values = rows.get(case)
        reference = rows.get(over or self.baseline or case)
        if not values or not reference or len(values) != len(reference):
            return None
        calm = _calm_rounds(reference)
        picked = [values[i] - (reference[i] if over else 0.0) for i in calm]
        return Summary(min(picked), statistics.median(picked))

    def value(self, budget: Budget) -> float | None:
        """What a budget compares with its limit; None where a side of it was not measured."""
        own = self.summary(budget.case, budget.over, budget.metric)
        if own is None or budget.ratio_to is None:
            return own.minimum if own else None
        other = self.summary(budget.ratio_to, budget.over, budget.metric)
        # Nothing is added by less than nothing: then a neighbour disturbed the baseline alone.
        if other is None or min(own.minimum, other.minimum) <= 0.0:
            return None
        return own.minimum / other.minimum


def _calm_rounds(reference: Sequence[float]) -> list[int]:
    """The half of the rounds in which the reference was fastest, in order of time."""
    by_time = sorted(range(len(reference)), key=reference.__getitem__)
    return sorted(by_time[: (len(by_time) + 1) // 2])


@contextlib.contextmanager
def _quiet_interpreter(pin: bool) -> Iterator[None]:
    """No garbage collection, and one core where the system lets us choose."""
    collecting = gc.isenabled()
    cores: Any = None
    if pin and hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then we run unpinned
            os.sched_setaffinity(0, {max(cores)})
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if cores is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, cores)
