"""Compiled loops: what is timed, and nothing else.

A statement is written ten times into the body of a `for` loop, its names are fast locals, and the
clock is read inside, as `timeit` does. Every loop is a code object of its own, so the
interpreter's inline caches of one case never see another case's callee.
A chunk is a function of the number of passes; it returns the nanoseconds that they took.
"""

from __future__ import annotations

import asyncio
import itertools
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any

UNROLLED = 10
Chunk = Callable[[int], int]

_SOURCE = """\
{prefix}def chunk(_passes, _now{names}):
    _start = _now()
    for _ in _passes:
{body}
    return _now() - _start
"""


def _compile(statement: str, names: Mapping[str, Any], *, prefix: str = "") -> Callable[..., Any]:
    body = textwrap.indent("\n".join([statement] * UNROLLED), " " * 8)
    parameters = "".join(f", {name}={name}" for name in names)
    source = _SOURCE.format(prefix=prefix, names=parameters, body=body)
    namespace = dict(names)
    exec(compile(source, f"<bench: {statement.splitlines()[0]}>", "exec"), namespace)
    chunk: Callable[..., Any] = namespace["chunk"]
    return chunk


def plain(statement: str, names: Mapping[str, Any]) -> Chunk:
    """A chunk in this thread."""
    loop = _compile(statement, names)
    return lambda passes: loop(itertools.repeat(None, passes), perf_counter_ns)


def awaiting(statement: str, names: Mapping[str, Any], runner: asyncio.Runner) -> Chunk:
    """A chunk inside one task of an event loop; the statement may await."""
    loop = _compile(statement, names, prefix="async ")

    def chunk(passes: int) -> int:
        elapsed: int = runner.run(loop(itertools.repeat(None, passes), perf_counter_ns))
        return elapsed

    return chunk


def threaded(
    statement: str, names: Mapping[str, Any], pool: ThreadPoolExecutor, threads: int
) -> Chunk:
    """A chunk in which every thread makes all passes; the wall time is shared out among them."""
    loops = [_compile(statement, names) for _ in range(threads)]

    def chunk(passes: int) -> int:
        start = perf_counter_ns()
        running = [
            pool.submit(loop, itertools.repeat(None, passes), perf_counter_ns) for loop in loops
        ]
        for future in running:
            future.result()
        return (perf_counter_ns() - start) // threads

    return chunk
