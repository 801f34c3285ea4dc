"""Where and with what a report was made: without it, a figure says nothing.

Versions come from the installed distributions, never from a list.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "memguard-native",
    "aiobreaker",
    "circuitbreaker",
    "interlock-cb",
    "purgatory",
    "pybreaker",
    "redis",
    "numpy",
    "psutil",
    "scipy",
    "fastapi",
    "granian",
    "gunicorn",
    "httptools",
    "hypercorn",
    "sentence-transformers",
    "starlette",
    "tokenizers",
    "torch",
    "uvicorn",
    "uvicorn-worker",
    "uvloop",
)


def stamp() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _processor(),
        "cores": os.cpu_count() or 1,
        "kernel": f"{platform.system()} {platform.release()}",
        "load": load(),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            "built": _build(),
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        },
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
    }


def interpreter() -> str:
    """`python3.11`, or `python3.13t` where it is free-threaded: the folder of its results."""
    free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"python{sysconfig.get_python_version()}{free_threaded}"


def load() -> float | None:
    """Runnable processes, the mean of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def overloaded(load_average: float | None, cores: int) -> str | None:
    """The warning for figures made on a busy machine."""
    if load_average is None or load_average <= cores:
        return None
    return f"the load average is {load_average:g} on {cores} cores: trust ratios at most"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _build() -> dict[str, Any]:
    """How the interpreter was made: the same source differs by a third between such builds."""
    flags = str(sysconfig.get_config_var("CFLAGS") or "").split()
    configured = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "optimisation": next((flag for flag in reversed(flags) if flag.startswith("-O")), None),
        "pgo": "--enable-optimizations" in configured,
        "lto": "--with-lto" in configured,
        "shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
    }
