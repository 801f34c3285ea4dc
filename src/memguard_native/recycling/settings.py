"""What the supervisor tells the processes that it starts: once, as JSON in a file in memory.

Frozen and made of plain values, so a process that was spawned knows the same as one that was
forked. Functions are named by import strings; only where the application is an object do the
objects themselves go along, by fork (`recycling.zygote.Objects`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from memguard_native import _core
from memguard_native.errors import ConfigError
from memguard_native.recycling.policy import ResolvedPolicy

MOST_PROCESSES = _core.SEGMENT_SLOTS - 1
"""Each worker has a slot of the segment, and so has the supervisor."""
BACKLOG = 2048
"""Connections that may wait to be accepted. asyncio calls listen() again in every worker, so all
have to ask for the same."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Of one service; `recycling.run` has the meaning of what is not told here."""

    app: str
    """An import string; where the application is an object, what it is called."""
    factory: bool = False
    preload: str | None = None
    warm_up: str | None = None
    """An import string, or a path that begins with "/"."""
    policy: ResolvedPolicy
    kill_timeout: float = 5.0
    drain_timeout: float = 30.0
    timeout_keep_alive: float = 30.0
    minute_s: float = 60.0
    namespace: str = "default"
    supervisor: int = 0
    """Its process number."""
    uvicorn_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `uvicorn.run`."""

    def check(self) -> None:
        """Raise ConfigError: an option of uvicorn that is no plain value."""
        _check_plain(self.uvicorn_options)

    def to_file(self) -> int:
        """A descriptor of a file in memory with all of it; the caller closes it."""
        values = {**asdict(self), "policy": self.policy.to_dict()}
        file = os.memfd_create("memguard-settings")
        os.write(file, json.dumps(values).encode())
        return file

    @classmethod
    def from_file(cls, file: int) -> ServiceSettings:
        """What `to_file()` has written. Closes `file`."""
        with os.fdopen(file, "rb") as stream:
            stream.seek(0)
            values = json.load(stream)
        values["policy"] = ResolvedPolicy.from_dict(values["policy"])
        return cls(**values)


def _check_plain(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            allowed = "must be a plain value (text, number, list, dict): it goes to other processes"
            raise ConfigError(name, value, allowed) from None


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """Which one of the workers a process is to be."""

    number: int
    """From 0: what people call it by."""
    generation: int
    """Grows with each process that is started."""
    predecessor: int | None = None
    """The slot of the one that had this number before it."""
