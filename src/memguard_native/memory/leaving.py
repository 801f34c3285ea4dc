"""`Leaving`: leaves to a successor, after each verdict, what this process has learnt."""

from __future__ import annotations

from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.history import Keeper
from memguard_native.memory.learning import Learning
from memguard_native.memory.load import Load
from memguard_native.memory.watch import Watch


class Leaving:
    """For one run of a monitor, on its thread. `keep` writes into the slot of this process."""

    def __init__(self, keep: Keeper, load: Load, config: MonitorConfig) -> None:
        self._keep = keep
        self._load = load
        self._learning = Learning(config.threshold_mb_per_hour)
        self._minute = -1

    def __call__(self, watch: Watch) -> None:
        """Leave what is known now; once a minute."""
        detector, latest = watch.detector, watch.latest
        requests = self._load.requests.value
        if requests is not None:
            self._keep.tell_requests(requests)
        self._keep.tell_limit(None if latest.limit is None else latest.limit.bytes)
        if detector.series.minute == self._minute:
            return
        self._minute = detector.series.minute
        alert = watch.standing("floor")
        leak = detector.leak
        learnt = self._learning.step(
            detector.series,
            state=str(latest.state),
            cause="unknown" if alert is None else alert.cause,
            growth=None if leak is None else leak.growth,
            window_minutes=None if leak is None else leak.window_minutes,
            per_load_mb=detector.per_load_mb,
            requests=requests,
        )
        if learnt is not None:
            self._keep.keep_learnt(learnt)
