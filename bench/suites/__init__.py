"""The suites: one question per file.

A suite is a module with a docstring, whose first line is the question, with `GROUP`, and with
`suite(b)`, which declares cases and budgets. `PICTURES` may name more pictures than that of its
figures, each with the function that draws it into a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

# The order in which tables and pictures show them.
ORDER = (
    "call",
    "arguments",
    "method",
    "windows",
    "coroutine",
    "coroutine_uvloop",
    "context_manager",
    "rejection",
    "failure",
    "threads",
    "scaling",
    "instructions",
    "ring_push",
    "ring_snapshot",
    "sampler",
    "sampler_large",
    "sampler_chunks",
    "sampler_share",
    "monitored_server",
    "detector",
    "detector_unseen",
    "detector_blind",
    "detector_verdicts",
    "detector_step",
    "evidence_cost",
    "shared_call",
    "shared_arguments",
    "shared_seen",
    "shared_processes",
    "shared_rivals",
    "embedding",
    "recycle",
    "recycle_cost",
    "recycle_protocol",
    "recycle_start",
)


@dataclass(frozen=True)
class Suite:
    """A suite by name, and the module that declares it."""

    name: str
    module: ModuleType

    @property
    def group(self) -> str:
        group: str = self.module.GROUP
        return group

    @property
    def pictures(self) -> dict[str, Callable[[Path], None]]:
        found: dict[str, Callable[[Path], None]] = getattr(self.module, "PICTURES", {})
        return found

    @property
    def question(self) -> str:
        return (self.module.__doc__ or "").strip().splitlines()[0]


def every() -> list[Suite]:
    names = sorted(
        (info.name for info in pkgutil.iter_modules(__path__)),
        key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name),
    )
    return [Suite(name, importlib.import_module(f"bench.suites.{name}")) for name in names]


def select(names: list[str]) -> list[Suite]:
    """The suites that the names of suites and groups mean, each once; all of them for none.

    Raises KeyError with the name that is neither.
    """
    suites = every()
    if not names:
        return suites
    for name in names:
        if not any(name in (suite.name, suite.group) for suite in suites):
            raise KeyError(name)
    return [suite for suite in suites if suite.name in names or suite.group in names]
