"""What became of each worker that was replaced, and the totals of a service."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from memguard_native.recycling.processes import WorkerProcess

_KEPT = 20
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class RecycleRecord:
    """One replacement; times are seconds."""

    at: float
    """When the old one had ended: seconds since 1970-01-01 UTC."""
    number: int
    reason: str
    evidence: Mapping[str, Any]
    """The figures that led to it."""
    generation: int
    pid: int | None
    successor_generation: int | None
    successor_pid: int | None
    boot_s: float | None
    """From the successor's start until it was ready."""
    drain_s: float | None
    """From the order to drain until the old one had ended."""
    handed_over: int = 0
    """Connections that went to others."""
    lingered: int = 0
    """Connections whose client was told to close."""
    aborted: int = 0
    """Connections that were closed in the middle of something."""
    private_bytes_before: int | None = None
    private_bytes_after: int | None = None
    """Own memory of the old one at last, and of the new one when it was ready."""

    @property
    def freed_bytes(self) -> int | None:
        """How much less the new one has; never < 0. None: one of them is not known."""
        if self.private_bytes_before is None or self.private_bytes_after is None:
            return None
        return max(0, self.private_bytes_before - self.private_bytes_after)

    def to_dict(self) -> dict[str, Any]:
        """All fields under their names, and `freed_bytes`."""
        return {**asdict(self), "evidence": dict(self.evidence), "freed_bytes": self.freed_bytes}

    def __str__(self) -> str:
        parts = [f"worker {self.number} was replaced: {self.reason}"]
        if self.evidence:
            figures = ", ".join(f"{name}={value}" for name, value in self.evidence.items())
            parts.append(f"at {figures}")
        if self.boot_s is not None:
            parts.append(f"boot {self.boot_s:.2f} s")
        if self.drain_s is not None:
            parts.append(f"drain {self.drain_s:.2f} s")
        parts.append(f"{self.handed_over} connections handed over, {self.aborted} aborted")
        if self.private_bytes_before is not None and self.private_bytes_after is not None:
            before, after = self.private_bytes_before / _MIB, self.private_bytes_after / _MIB
            parts.append(f"memory {before:.1f} -> {after:.1f} MiB")
        return "; ".join(parts)


class Recycles:
    """The newest records and the totals of a service."""

    def __init__(self) -> None:
        self.newest: deque[RecycleRecord] = deque(maxlen=_KEPT)
        self.by_reason: Counter[str] = Counter()
        self.freed_bytes: Counter[str] = Counter()
        self.handed_over = 0
        self.aborted = 0
        self.only_told = 0
        """Replacements that a dry run has told instead."""
        self.capacity_gap_seconds = 0.0
        """Time with fewer workers ready than wanted, since all were ready for the first time."""

    def count(self, old: WorkerProcess) -> None:
        """It has ended, for whatever reason: what became of its connections."""
        self.handed_over += (old.farewell or {}).get("handed_over", 0)
        self.aborted += _aborted(old)

    def add(
        self, old: WorkerProcess, new: WorkerProcess | None, reason: str, now: float
    ) -> RecycleRecord:
        """`old` has ended (see `count`), and `new` has taken its place; None: not yet."""
        farewell = old.farewell or {}
        record = RecycleRecord(
            at=time.time(),
            number=old.number,
            reason=reason,
            evidence=dict(old.evidence),
            generation=old.generation,
            pid=old.pid,
            successor_generation=None if new is None else new.generation,
            successor_pid=None if new is None else new.pid,
            boot_s=None if new is None else new.boot_s,
            drain_s=None if old.drain_at is None else round(now - old.drain_at, 3),
            handed_over=farewell.get("handed_over", 0),
            lingered=farewell.get("lingered", 0),
            aborted=_aborted(old),
            private_bytes_before=old.page.get("own_bytes"),
            private_bytes_after=None if new is None else new.ready_bytes,
        )
        self.newest.append(record)
        self.by_reason[reason] += 1
        self.freed_bytes[reason] += record.freed_bytes or 0
        return record

    def totals(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recycles": dict(self.by_reason),
            "freed_bytes": dict(self.freed_bytes),
            "handed_over": self.handed_over,
            "aborted": self.aborted,
            "only_told": self.only_told,
            "capacity_gap_seconds": round(self.capacity_gap_seconds, 3),
        }


def _aborted(worker: WorkerProcess) -> int:
    if worker.farewell is not None:
        return int(worker.farewell.get("aborted", 0))
    # It died without a word. One that drained had given the idle ones away, and its heart had told
    # of the others a tenth of a second ago at most.
    kind = "requests_in_flight" if worker.drain_at is None else "connections"
    return int(worker.page.get(kind, 0))
