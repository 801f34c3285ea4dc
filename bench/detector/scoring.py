"""Counts how right verdicts are, by trace.

A leak is found if an alert is raised at or after its onset. An alert is false if it is raised in a
healthy trace or before the onset. Precision is the found leaks by those and the traces with a false
alert; recall the found ones by all leaks. False alerts per healthy hour counts every alert that is
raised in a healthy trace, once each: one that stands for hours is one. A delay is the number of
samples, so minutes, from the onset to the alert.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.detector.traces import Trace

# Classes of rate in MB/h by their least, and the delay in minutes that is the goal for each.
DELAY_GOALS = {12: 200.0, 40: 150.0, 100: 90.0, 600: 50.0}
CLASS_NAMES = {12: "12-40", 40: "40-100", 100: "100-600", 600: "600+"}

_RATE_TOLERANCE = 0.2
_SUSPECT_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alert as it was raised."""

    sample: int
    mb_per_hour: float | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector says of a trace: when it raised alerts and suspicions."""

    alarms: tuple[Alarm, ...] = ()
    suspicions: tuple[tuple[int, int], ...] = ()
    """From which sample to which: the last is the first without."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict held against the truth."""

    trace: Trace
    verdict: Verdict

    @property
    def found(self) -> Alarm | None:
        """The alarm that found the leak."""
        if not self.trace.leaks:
            return None
        later = (alarm for alarm in self.verdict.alarms if alarm.sample >= self.trace.onset)
        return next(later, None)

    @property
    def false_alarms(self) -> int:
        if not self.trace.leaks:
            return len(self.verdict.alarms)
        return sum(alarm.sample < self.trace.onset for alarm in self.verdict.alarms)

    @property
    def missed(self) -> bool:
        return self.trace.leaks and self.found is None

    @property
    def delay(self) -> int | None:
        return None if self.found is None else self.found.sample - self.trace.onset

    @property
    def delay_class(self) -> int:
        return delay_class(self.trace.mb_per_hour)


def delay_class(mb_per_hour: float) -> int:
    """The least of the class that a rate belongs to; slower ones belong to the slowest."""
    return max((least for least in DELAY_GOALS if mb_per_hour >= least), default=min(DELAY_GOALS))


@dataclass(frozen=True)
class Score:
    """The counts of many outcomes. A share is None where there is nothing to count."""

    outcomes: Sequence[Outcome] = field(repr=False)

    @property
    def precision(self) -> float | None:
        found = sum(one.found is not None for one in self.outcomes)
        false = sum(one.false_alarms > 0 for one in self.outcomes)
        return _share(found, found + false)

    @property
    def recall(self) -> float | None:
        leaks = [one for one in self.outcomes if one.trace.leaks]
        return _share(sum(not one.missed for one in leaks), len(leaks))

    @property
    def f1(self) -> float | None:
        precision, recall = self.precision, self.recall
        if not precision or not recall:
            return None if precision is None or recall is None else 0.0
        return 2 * precision * recall / (precision + recall)

    @property
    def false_alerts_per_healthy_hour(self) -> float | None:
        healthy = [one for one in self.outcomes if not one.trace.leaks]
        hours = sum(one.trace.hours for one in healthy)
        return sum(one.false_alarms for one in healthy) / hours if hours else None

    @property
    def mean_delay(self) -> float | None:
        """Over all leaks; of one that is missed it is the rest of its trace, so that silence is not
        fast.
        """
        delays = [
            len(one.trace.samples) - one.trace.onset if one.delay is None else one.delay
            for one in self.outcomes
            if one.trace.leaks
        ]
        return statistics.fmean(delays) if delays else None

    def delays(self, least: int) -> list[int]:
        """Those of the leaks of a class that were found, sorted."""
        return sorted(
            one.delay for one in self.outcomes if one.delay is not None and one.delay_class == least
        )

    def median_delay(self, least: int) -> float | None:
        delays = self.delays(least)
        return statistics.median(delays) if delays else None

    def p90_delay(self, least: int) -> float | None:
        """The delay that nine of ten do not exceed."""
        delays = self.delays(least)
        return float(delays[-(-9 * len(delays) // 10) - 1]) if delays else None

    @property
    def right_rates(self) -> float | None:
        """Of the steady leaks that were found: whose rate is within 20 % of the true one."""
        steady = [
            abs(alarm.mb_per_hour / one.trace.mb_per_hour - 1.0) <= _RATE_TOLERANCE
            for one, alarm in self._found()
            if one.trace.is_steady and alarm.mb_per_hour is not None
        ]
        return _share(sum(steady), len(steady))

    @property
    def right_causes(self) -> float | None:
        """Of the leaks that were found: whose cause is one of those that are accepted."""
        named = [
            alarm.cause in one.trace.causes
            for one, alarm in self._found()
            if alarm.cause is not None
        ]
        return _share(sum(named), len(named))

    @property
    def early_suspects(self) -> float | None:
        """Of the leaks: which were under suspicion within an hour of the onset."""
        leaks = [one for one in self.outcomes if one.trace.leaks]
        early = [
            any(
                begin <= one.trace.onset + _SUSPECT_MINUTES and end > one.trace.onset
                for begin, end in one.verdict.suspicions
            )
            for one in leaks
        ]
        return _share(sum(early), len(early))

    def _found(self) -> Iterable[tuple[Outcome, Alarm]]:
        return ((one, one.found) for one in self.outcomes if one.found is not None)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
