"""`Learnt`: what a process has learnt of its memory, kept in its slot for a successor.

A slot of the segment is anonymous, and a worker that was killed keeps it until others are used up,
so a successor often gets another one. `find_learnt()` therefore looks at all slots, for the newest
that a process has left which has ended, or which leaks and so is to be replaced. All processes of a
namespace run one service; where they do not, `inheritance` drops soon what does not fit.

The file is not trusted: what is not legal there is None.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from memguard_native import _core


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What one process knew of itself; None: not known. MB is 2**20 bytes."""

    state: str
    """Its last verdict: "learning", "steady", "suspect" or "alert"."""
    cause: str = "unknown"
    """What grew, as in `Alert.cause`."""
    rate_mb_per_hour: float | None = None
    """How fast memory grew that is never given back."""
    mb_per_1000_requests: float | None = None
    """The same growth by the requests that were served meanwhile."""
    mb_per_load: float | None = None
    """What a unit of load takes while it is in flight."""
    baseline_mb: float | None = None
    """Private memory when start-up was over."""
    retained_mb: float | None = None
    """Private memory at last: what it did not give back any more."""
    warm_up_minutes: float | None = None
    """How long start-up took, as its memory shows."""
    requests: int | None = None
    """How many it served."""
    at: float | None = None
    """When it was kept: seconds since 1970-01-01 UTC; None: it is not kept yet."""
    generation: int | None = None
    """Which owner of its slot that process was, from 1; None: it is not kept yet."""
    pid: int | None = None
    """That process; None: it is not kept yet."""

    def to_dict(self) -> dict[str, Any]:
        """All fields under their names. Ready for JSON."""
        return dataclasses.asdict(self)


# What the core fills in, because it knows better.
_STAMPED = ("at", "generation", "pid")


def keep_learnt(core: _core.Segment, learnt: Learnt) -> bool:
    """Keep it in the slot of this process, in one step; False: it has none.

    Raises ValueError: a state or cause that there is not, an amount that is not from 0 to 2**43 MB.
    """
    fields = learnt.to_dict()
    for name in _STAMPED:
        del fields[name]
    return core.set_learnt(**fields)


def learnt_of(core: _core.Segment, slot: int) -> Learnt | None:
    """What the newest owner of a slot that knew something has left; None: nothing legal.

    Raises IndexError: there is no such slot.
    """
    found = core.learnt(slot)
    return None if found is None else Learnt(**found)


def find_learnt(core: _core.Segment) -> Learnt | None:
    """What this process is to begin with, if it follows another one; None if it does not."""
    candidates = []
    for worker in core.workers():
        if worker["learnt"] is None:
            continue
        learnt = Learnt(**worker["learnt"])
        is_of_owner = worker["is_alive"] and learnt.generation == worker["generation"]
        if is_of_owner and (worker["slot"] == core.slot or learnt.state != "alert"):
            continue  # our own, or of a neighbour that has nothing to do with us
        candidates.append(learnt)
    return max(candidates, key=lambda learnt: learnt.at or 0.0, default=None)
