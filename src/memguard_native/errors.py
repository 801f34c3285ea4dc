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
    "SegmentError",
    "SegmentUnavailableError",
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
