"""The blocks of Python in a document, each with what it prints, and how they are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# A block of Python, and the block of text that says what it prints, if one follows.
_BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
TIMEOUT_S = 60.0


def blocks_of(document: Path) -> list[tuple[str, str]]:
    """Code and what it prints; "" where no block of text follows."""
    return _BLOCK.findall(document.read_text())


def run(code: str, *warnings: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, where a warning is an error; `warnings` are made before."""
    options = [option for warning in ("error", *warnings) for option in ("-W", warning)]
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
