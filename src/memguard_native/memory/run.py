"""`Run`: one run of a monitor of this process: samples in; verdict, response and inheritance out.

From a start to a stop, so that what was concluded before it has no part in it. One thread at a time
observes; `watch.latest` and what else is immutable may be read by any.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from memguard_native.memory.advice import advise
from memguard_native.memory.config import MonitorConfig
from memguard_native.memory.effects import circumstances_of
from memguard_native.memory.explanation import Explanation, verdict_of
from memguard_native.memory.gpu import GpuReader
from memguard_native.memory.history import Keeper
from memguard_native.memory.leaving import Leaving
from memguard_native.memory.limits import MemoryLimit, effective_limit
from memguard_native.memory.load import Load
from memguard_native.memory.probe import BlockCounter, Probe
from memguard_native.memory.response import Response
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.surroundings import read_surroundings
from memguard_native.memory.watch import Watch

logger = logging.getLogger("memguard_native.memory")

_T = TypeVar("_T")

# Alerts and suspicions: a process runs for months, and the window rule can raise one every minute.
_MOST_KEPT = 100


class Run:
    """One run.

    Args:
        config: what the monitor was told.
        probe: measures what an action gives back.
        load: what this process has in flight.
        keep: writes into the slot of this process; None: nothing outlives it.
        environ: where MEMGUARD_LIMIT is, for limits of the system; None: they are not for the
            memory that is watched.
        retry_malloc: has the sampler read malloc's figures again.
    """

    def __init__(
        self,
        config: MonitorConfig,
        probe: Probe,
        load: Load,
        keep: Keeper | None,
        environ: Mapping[str, str] | None,
        retry_malloc: Callable[[], object] | None = None,
    ) -> None:
        self._config = config
        self._keep = keep
        self._environ = environ
        self._read_load = config.load
        self._has_load_failed = False
        self._has_failed_to_keep = False
        self._blocks = BlockCounter()
        self._gpu = GpuReader(config.gpu)
        self._leave = None if keep is None else Leaving(keep, load, config)
        self.is_closed = False
        """Whether it is over."""
        self.response = Response(config, probe, load.idle_seconds, retry_malloc)
        self.watch = Watch(
            config,
            find_limit=None if environ is None else self._find_limit,
            responder=self.response,
            learnt=None if keep is None else keep.find_learnt(),
            most_kept=_MOST_KEPT,
        )

    def observe(self, sample: MemorySample) -> None:
        """Take the next sample."""
        if self._config.probe is None:  # what a probe of the user's finds may be of anything
            sample = sample._replace(python_blocks=self._blocks.read(), gpu_bytes=self._gpu.read())
        if self._read_load is not None:
            sample = sample._replace(load=self._asked_load())
            if self.is_closed:
                return
        if self._keep is not None:  # first: a callback of the user's may take long
            self._try_to_keep(self._keep, sample)
        self.watch.observe(sample)
        if self._leave is not None:
            self._try_to_keep(self._leave, self.watch)

    def explain(self) -> Explanation:
        """All that is known now; any thread."""
        watch, response = self.watch, self.response
        latest = watch.latest
        alert = latest.alert
        threshold = self._config.threshold_mb_per_hour
        return Explanation(
            state=latest.state,
            alert=alert,
            suspect=latest.suspect,
            forecast=latest.forecast,
            limit=latest.limit,
            parts_mb_per_hour=watch.parts_mb_per_hour,
            per_load_mb=watch.detector.per_load_mb,
            scales=tuple(verdict_of(*said, threshold) for said in watch.detector.said),
            evidence=response.evidence,
            actions=response.records,
            advice=() if alert is None else tuple(advise(circumstances_of(alert))),
        )

    def abandon(self) -> None:
        """In a forked child: this run is the parent's."""
        self.is_closed = True
        self.response.abandon()

    def close(self) -> None:
        """Leave nothing behind in the process, and call back no more; any thread."""
        self.is_closed = True
        self.response.close()

    def _try_to_keep(self, keep: Callable[[_T], object], what: _T) -> None:
        try:
            keep(what)
        except Exception:  # what is shared is of use to others; the guard of this process goes on
            if not self._has_failed_to_keep:
                self._has_failed_to_keep = True
                logger.exception(
                    "memory history could not be kept; further failures are not logged"
                )

    def _asked_load(self) -> float | None:
        assert self._read_load is not None
        try:
            load = float(self._read_load())
            return load if math.isfinite(load) else None
        except Exception:
            if not self._has_load_failed:
                self._has_load_failed = True
                logger.exception("load() raised; further errors of it are not logged")
            return None

    def _find_limit(self, sample: MemorySample) -> MemoryLimit | None:
        surroundings = read_surroundings(self._environ or {})
        return effective_limit(sample, surroundings, limit_bytes=self._config.limit_bytes)
