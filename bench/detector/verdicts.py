"""What our detector says of a trace: the very code of the monitor, fed sample by sample."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bench.detector import traces
from bench.detector.scoring import Alarm, Outcome, Verdict
from bench.detector.traces import Trace
from memguard_native.memory.attribution import attribute
from memguard_native.memory.config import DEFAULT_WARM_UP
from memguard_native.memory.detector import Detector

THRESHOLD_MB_PER_HOUR = 10.0
WARM_UP_MINUTES = DEFAULT_WARM_UP / 60.0


def new_detector() -> Detector:
    return Detector(threshold_mb_per_hour=THRESHOLD_MB_PER_HOUR, warm_up_minutes=WARM_UP_MINUTES)


@cache
def outcomes(folder: Path, with_load: bool) -> tuple[Outcome, ...]:
    """Ours over all traces of a folder, as a program would do that reports its load, or not."""
    read = traces.load(folder) if with_load else traces.load_without_load(folder)
    return tuple(Outcome(trace, judge(trace)) for trace in read)


def judge(trace: Trace) -> Verdict:
    """Alarms where each is raised, and suspicions as long as each lasts."""
    detector = new_detector()
    alarms: list[Alarm] = []
    suspicions: list[tuple[int, int]] = []
    is_raised = False
    suspect_since: int | None = None
    for number, sample in enumerate(trace.samples):
        detector.add(sample)
        if detector.leak is not None and not is_raised:
            alarms.append(_alarm(detector, number))
        is_raised = detector.leak is not None
        if detector.trend_mb_per_hour is None:
            if suspect_since is not None:
                suspicions.append((suspect_since, number))
            suspect_since = None
        elif suspect_since is None:
            suspect_since = number
    if suspect_since is not None:
        suspicions.append((suspect_since, len(trace.samples)))
    return Verdict(tuple(alarms), tuple(suspicions))


def _alarm(detector: Detector, number: int) -> Alarm:
    leak = detector.leak
    assert leak is not None
    fragmented = leak.signal == "private"
    found = attribute(detector.series, leak.window_minutes, fragmented=fragmented)
    return Alarm(number, leak.growth.rate_mb_per_hour, found.cause)
