"""Every error that this package raises on purpose is a `MemguardError`.

`MemguardError` and `CircuitOpenError` are made by the native core, which raises the latter.
"""

from __future__ import annotations

import math
from typing import Any

from memguard_native._core import CircuitOpenError, MemguardError

__all__ = [
    "CircuitOpenError",
    "ConfigError",
    "MemguardError",
    "ProcessDeniedError",
    "ProcessGoneError",
    "SegmentError",
    "SegmentUnavailableError",
    "SupervisorError",
    "TraceError",
    "is_finite_number",
]


class ConfigError(MemguardError, ValueError):
    """A value given to a constructor or an option is not allowed.

    `field` names it, `value` is what was given, `allowed` says what is allowed.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(field, value, allowed)
        self.field = field
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.field} {self.allowed}, got {self.value!r}"


class SegmentError(MemguardError):
    """The file that processes share cannot be used.

    `path` names it, `problem` says what is wrong, `cure` what to do.
    """

    def __init__(self, path: str, problem: str, cure: str) -> None:
        super().__init__(path, problem, cure)
        self.path = path
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.cure}"


class SegmentUnavailableError(SegmentError):
    """There is no file to share, or no room in it: what needs one does without."""


class SupervisorError(MemguardError):
    """A supervisor cannot be found, or does not do what it is asked for.

    `subject` names its socket or its namespace, `problem` says what is wrong, `cure` what to do.
    """

    def __init__(self, subject: str, problem: str, cure: str) -> None:
        super().__init__(subject, problem, cure)
        self.subject = subject
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; {self.cure}"


class TraceError(MemguardError, ValueError):
    """A file is no trace of memory.

    `path` names it; `row` counts from 0, as samples do, and is None if it is not about a row;
    `column` names the column, if it is about one; `problem` says what is wrong.
    """

    def __init__(self, path: str, row: int | None, column: str | None, problem: str) -> None:
        super().__init__(path, row, column, problem)
        self.path = path
        self.row = row
        self.column = column
        self.problem = problem

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column {self.column}"
        return f"{self.path}{row}{column}: {self.problem}"


class ProcessGoneError(MemguardError):
    """There is no process `pid`, or no more."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"there is no process {self.pid}"


class ProcessDeniedError(MemguardError):
    """This user may not look at process `pid`; `problem` is the system's word for it."""

    def __init__(self, pid: int, problem: str) -> None:
        super().__init__(pid, problem)
        self.pid = pid
        self.problem = problem

    def __str__(self) -> str:
        return f"process {self.pid} may not be looked at: {self.problem}; run as its user or root"


def is_finite_number(value: Any) -> bool:
    """Whether `value` is an int or a float, no bool, that is finite and not too large for a float.

    What every check of a number begins with, before it raises a ConfigError.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond any float
        return False
