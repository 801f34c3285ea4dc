"""How often is the verdict "this leaks" right, and how soon, on programs that nobody had looked at?

24 recorded programs, written and recorded by who did not know the detector, and judged once it was
done. The goals are those of `detector`, told and not binding: each program weighs 8 %.
"""

from __future__ import annotations

from bench.detector import traces
from bench.harness import Bench
from bench.suites.detector import record_others

GROUP = "detector"


def suite(b: Bench) -> None:
    record_others(b, traces.BLIND)
