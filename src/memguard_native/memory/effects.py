"""The hands of `memory.actions` in this process: collect, trim, empty a GPU's cache, tell, ask.

Nothing is imported for it: torch is used if the program has imported it and uses a GPU.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from memguard_native import _core
from memguard_native.memory.actions import MemoryNow
from memguard_native.memory.advice import Circumstances, advise
from memguard_native.memory.alert import Alert
from memguard_native.memory.probe import Probe, default_probe

logger = logging.getLogger("memguard_native.memory")


class ProcessEffects:
    """Acts on this process.

    Args:
        log_alert: writes an alert to the log.
        on_alert: the user's callback for alerts, if there is one.
        on_recycle: asks whoever can for this process to be replaced. Without one there is nobody
            to ask, and a warning in the log says that it is time.
        probe: measures memory before and after; default the best of this system.
        monotonic: the clock that decisions are made by, in seconds.
    """

    def __init__(
        self,
        log_alert: Callable[[Alert], object],
        on_alert: Callable[[Alert], object] | None = None,
        on_recycle: Callable[[Alert], object] | None = None,
        probe: Probe | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._log_alert = log_alert
        self._on_alert = on_alert
        self._on_recycle = on_recycle
        self._probe = default_probe() if probe is None else probe

    def monotonic(self) -> float:
        return self._monotonic()

    def wall(self) -> float:
        return time.time()

    def memory(self) -> MemoryNow:
        sample = self._probe.sample()
        private_bytes = sample.private_bytes
        return MemoryNow(
            private_bytes=sample.rss_bytes if private_bytes is None else private_bytes,
            live_bytes=sample.live_bytes,
            gpu_bytes=_gpu_reserved_bytes(),
        )

    def log(self, alert: Alert) -> None:
        self._log_alert(alert)

    def callback(self, alert: Alert) -> None:
        if self._on_alert is not None:
            self._on_alert(alert)

    def collect(self) -> None:
        gc.collect()

    def trim(self) -> None:
        if _core.malloc_trim() is None:
            raise OSError("this allocator cannot be asked to give memory back")

    def empty_gpu_cache(self) -> None:
        torch = torch_on_gpu()
        if torch is not None:
            torch.cuda.empty_cache()

    def advise(self, alert: Alert) -> None:
        for advice in advise(circumstances_of(alert)):
            logger.info("memory advice: %s. %s Try: %s", advice.title, advice.text, advice.setting)

    def recycle(self, alert: Alert) -> None:
        if self._on_recycle is not None:
            self._on_recycle(alert)
        else:
            logger.warning("memory: it is time to replace this process; nobody is there to ask")


def torch_on_gpu() -> Any:
    """The module torch if it is imported and has initialised CUDA, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while torch is still being imported
    if cuda is None or not cuda.is_initialized():
        return None
    return torch


def _gpu_reserved_bytes() -> int | None:
    torch = torch_on_gpu()
    if torch is None:
        return None
    devices = range(torch.cuda.device_count())
    return int(sum(torch.cuda.memory_reserved(device) for device in devices))


def circumstances_of(alert: Alert, environment: Mapping[str, str] | None = None) -> Circumstances:
    """What advice for this alert depends on in this process."""
    environment = os.environ if environment is None else environment
    return Circumstances(
        cause=alert.cause,
        modules=frozenset(tuple(sys.modules)),
        environment=environment,
        allocator=allocator_by(environment),
        gc_enabled=gc.isenabled(),
        gc_frozen=gc.get_freeze_count(),
        threads_grow="thread" in alert.cause_text,
    )


def allocator_by(environment: Mapping[str, str]) -> str:
    """Which malloc a process with this environment has: what is preloaded, else the C library's."""
    preloaded = environment.get("LD_PRELOAD", "")
    for name in ("jemalloc", "mimalloc"):
        if name in preloaded:
            return name
    if "malloc" in preloaded:  # tcmalloc and others
        return "other"
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # no such system, or musl
        is_glibc = False
    return "glibc" if is_glibc else "other"
