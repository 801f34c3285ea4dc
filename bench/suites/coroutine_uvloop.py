"""What does the decorator add to `await f()`, under uvloop?

The cases and the gate are those of the suite `coroutine`; uvloop is the event loop that uvicorn
takes where it is installed.
"""

from __future__ import annotations

import importlib

from bench import rivals
from bench.harness import Bench
from bench.suites import coroutine

GROUP = "breaker"


def suite(b: Bench) -> None:
    if rivals.version("uvloop") is None:
        b.absent("bare await", "uvloop is not installed", "uvloop")
        return
    b.loop_factory = importlib.import_module("uvloop").new_event_loop
    coroutine.suite(b)
