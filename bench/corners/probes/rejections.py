"""The error of a rejected call."""

from __future__ import annotations

import os
import pickle
import time
from typing import Any

from bench.corners.adapters import LONG_S, Breaker, succeed
from bench.corners.tools import Held, opened

# The clocks of the world, without a data base of them.
UTC, TOKYO = "UTC0", "JST-9"


def traceback_length(library: type[Breaker]) -> str:
    """1000 rejections: traceback length"""
    breaker = opened(library, timeout=LONG_S)
    guarded = breaker.guard(succeed)
    length = 0
    for _ in range(1000):
        try:
            guarded()
        except breaker.rejection as error:
            length = _frames(error)
    return str(length)


def _frames(error: BaseException) -> int:
    length, entry = 0, error.__traceback__
    while entry is not None:
        length, entry = length + 1, entry.tb_next
    return length


def time_to_retry(library: type[Breaker]) -> str:
    """time to retry on the error"""
    told = {zone: _told_while_open(library, zone) for zone in (UTC, TOKYO)}
    if not told[UTC]:
        breaker = opened(library, timeout=LONG_S)
        return "on the breaker only" if _about(breaker.own_retry_after(), LONG_S) else "no"
    if not told[TOKYO]:
        return "in UTC only"
    return "yes" if _told_while_probing(library) else "not while a probe runs"


def _told_while_open(library: type[Breaker], zone: str) -> bool:
    os.environ["TZ"] = zone
    time.tzset()
    breaker = opened(library, timeout=LONG_S)
    return _about(breaker.retry_after(breaker.reject()), LONG_S)


def _about(seconds: float | None, expected: float) -> bool:
    return seconds is not None and expected - 1 < seconds <= expected


def _told_while_probing(library: type[Breaker]) -> bool:
    breaker = opened(library)
    breaker.let_time_pass()
    with Held(breaker):
        error = breaker.reject()
        # Who lets everybody run has nothing to tell.
        return error is None or breaker.retry_after(error) is not None


def pickled(library: type[Breaker]) -> str:
    """pickle of the error"""
    error = opened(library, timeout=LONG_S).reject()
    text, fields = str(error), _fields(error)
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception as problem:  # noqa: BLE001 - whatever it is, it is the answer
        return f"fails: {type(problem).__name__}"
    found = _fields(copy)
    # What runs with the clock differs from itself already.
    steady = {field for field, value in _fields(error).items() if value == fields[field]}
    wrong = ["text"] if str(copy) != text else []
    wrong += sorted(field for field in steady if found.get(field) != fields[field])
    if wrong:
        return f"wrong: {', '.join(wrong)}"
    return "all fields" if fields else "text only"


def _fields(error: Any) -> dict[str, str]:
    """As text, since exceptions among the values are equal to nothing but themselves."""
    names = [name for name in dir(error) if name not in dir(Exception) and name[0] != "_"]
    values = {name: getattr(error, name) for name in names}
    return {name: repr(value) for name, value in values.items() if not callable(value)}
