"""Shows what this package logs, in the processes of a service where nobody has said how."""

from __future__ import annotations

import faulthandler
import logging
import sys
from contextlib import suppress

FORMAT = "%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s"


def configure_logging(level: str | int | None) -> None:
    """To stderr, from `level` on (default info); nothing happens where there is a handler."""
    package = logging.getLogger("memguard_native")
    if package.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    package.addHandler(handler)
    known = "debug" if level == "trace" else level or "info"  # which only uvicorn has
    package.setLevel(known.upper() if isinstance(known, str) else known)


def tell_where_it_hangs() -> None:
    """SIGABRT, which ends a process that hangs, has it write where to stderr, if it has one."""
    if sys.__stderr__ is not None:
        with suppress(RuntimeError, OSError, ValueError):
            faulthandler.enable(sys.__stderr__)
