"""Shows what this package logs, in the processes of a service where nobody has said how."""

from __future__ import annotations

import logging
import sys

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
