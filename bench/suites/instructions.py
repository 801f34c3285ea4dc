"""How many instructions does the guard cost beyond the empty trampoline?

Counted by callgrind, so it is exact and can be a gate on any machine (how: bench/callgrind.py). The
yardstick of `await` is an `async def` wrapper in Python, with the target's exact signature, around
the cheapest native method there is: what a native breaker costs as long as the wrapper itself is
Python.
"""

from __future__ import annotations

import sys

from bench import callgrind
from bench.harness import Bench

GROUP = "breaker"

_IMPORTS = """\
from memguard_native import _core
from memguard_native.breaker.breaker import CircuitBreaker
"""
_FUNCTION = f"{_IMPORTS}def noop(): pass\n"
_COROUTINE = f"{_IMPORTS}async def noop(): pass\n"
# Two calls of a native method without arguments stand for `admit` and `settle`.
_WRAPPER = f"""{_COROUTINE}\
admit = settle = (0).bit_length
async def x():
    if admit():
        raise RuntimeError
    try:
        result = await noop()
    except BaseException:
        settle()
        raise
    settle()
    return result
"""

CALLS = {
    "bare call": ("x()", f"{_FUNCTION}x = noop"),
    "trampoline": ("x()", f"{_FUNCTION}x = _core.trampoline(noop)"),
    "memguard": ("x()", f"{_FUNCTION}x = CircuitBreaker('bench')(noop)"),
}
AWAITS = {
    "bare await": ("await x()", f"{_COROUTINE}x = noop"),
    "memguard, await": ("await x()", f"{_COROUTINE}x = CircuitBreaker('bench')(noop)"),
    "Python wrapper + native methods, await": ("await x()", _WRAPPER),
}

CALL_BUDGET = 30.0
# From 3.12 on the interpreter drives a native awaitable by a StopIteration per await.
AWAIT_BUDGET = 0.45 if sys.version_info < (3, 12) else 1.1


def suite(b: Bench) -> None:
    b.progress("callgrind")
    for name, count in callgrind.count_all(CALLS | AWAITS).items():
        package = "memguard-native" if name.startswith("memguard") else None
        b.record(name, "instructions", count, package=package)
    b.budget("memguard", over="trampoline", at_most=CALL_BUDGET, metric="instructions", goal="G1")
    b.budget(
        "memguard, await",
        over="bare await",
        ratio_to="Python wrapper + native methods, await",
        at_most=AWAIT_BUDGET,
        metric="instructions",
        goal="G6",
    )
