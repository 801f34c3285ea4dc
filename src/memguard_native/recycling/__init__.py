"""Workers that are replaced before they fall, and no client notices; `run()` is the door."""

from __future__ import annotations

_HOME = {
    "RecyclePolicy": "memguard_native.recycling.policy",
    "RecyclingWarning": "memguard_native.recycling.uvicorn",
    "run": "memguard_native.recycling.service",
    "uvicorn_config": "memguard_native.recycling.uvicorn",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memguard_native.recycling.policy import RecyclePolicy
    from memguard_native.recycling.service import run
    from memguard_native.recycling.uvicorn import RecyclingWarning, uvicorn_config

__all__ = ["RecyclePolicy", "RecyclingWarning", "run", "uvicorn_config"]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
