"""Every error that this package raises on purpose is a `MemguardError`.

`MemguardError` and `CircuitOpenError` are made by the native core, which raises the latter.
"""

from __future__ import annotations

from memguard_native._core import CircuitOpenError, MemguardError

__all__ = ["CircuitOpenError", "ConfigError", "MemguardError"]


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
