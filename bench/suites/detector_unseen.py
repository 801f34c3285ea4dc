"""How often is the verdict "this leaks" right, and how soon, on other programs?

24 recorded programs with other mechanisms and other shapes of load, picked to be hard. No constant
was chosen on them, but their authors knew the detector. The goals are those of `detector`, told and
not binding: of 12 leaks and 12 healthy programs each one weighs 8 %.
"""

from __future__ import annotations

from bench.detector import traces
from bench.harness import Bench
from bench.suites.detector import record_others

GROUP = "detector"


def suite(b: Bench) -> None:
    record_others(b, traces.UNSEEN)
