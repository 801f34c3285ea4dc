"""The core in sub-interpreters: its state is each interpreter's own, or it refuses in words."""

from __future__ import annotations

import subprocess
import sys
import textwrap

SCRIPT = """
    import sys
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters

    from memguard_native import CircuitBreaker, CircuitOpenError
    from memguard_native._core import Guard

    work = '''if True:
        from memguard_native import CircuitBreaker, CircuitOpenError
        from memguard_native._core import Guard
        assert id(Guard) != {other}, "the type belongs to another interpreter"
        breaker = CircuitBreaker("inner", 1)
        @breaker
        def fail(): raise ValueError
        @breaker
        async def answer(): return 42
        try:
            answer().send(None)
        except StopIteration as stop:
            assert stop.value == 42
        for expected in (ValueError, CircuitOpenError):
            try:
                fail()
            except expected:
                continue
            raise AssertionError("nothing was raised")
    '''.format(other=id(Guard))

    for _ in range(5):
        interpreter = interpreters.create()
        failure = interpreters.run_string(interpreter, work)
        assert failure is None, failure
        interpreters.destroy(interpreter)

    breaker = CircuitBreaker("outer", 1)
    breaker.trip()
    try:
        breaker.call(len, "x")
    except CircuitOpenError as error:
        print("rejected:", error.name)
"""


def test_each_interpreter_has_its_own_types_and_errors():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if sys.version_info >= (3, 12):
        assert (done.returncode, done.stdout) == (0, "rejected: outer\n"), done.stderr
    else:
        assert done.returncode == 1
        assert "in a sub-interpreter needs CPython 3.12 or newer" in done.stderr


ARENAS = """
    import sys
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters

    from memguard_native import _core

    grow = "many = [object() for _ in range(1_000_000)]"
    before = _core.python_arena_bytes()
    inner = interpreters.create()
    assert interpreters.run_string(inner, grow) is None
    during = _core.python_arena_bytes()
    assert during > before + 10 * 2**20, (before, during)
    assert interpreters.run_string(inner, "del many; import gc; gc.collect()") is None
    assert _core.python_arena_bytes() < during - 8 * 2**20
    if sys.version_info >= (3, 12):
        ask = "from memguard_native import _core; told = _core.python_arena_bytes()"
        assert interpreters.run_string(inner, ask + "; assert told is not None") is None
    interpreters.destroy(inner)
    print("counted")
"""


def test_arenas_of_all_interpreters_are_counted():
    assert printed_by(ARENAS) == "counted\n"


LATE = """
    import sys
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    interpreters.create()
    from memguard_native import _core
    print(_core.python_arena_bytes() is None)
"""


def test_arenas_are_unknown_where_other_interpreters_had_their_own_before():
    """From 3.12 on: before it all interpreters share one allocator."""
    assert printed_by(LATE) == f"{sys.version_info >= (3, 12)}\n"


def printed_by(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
