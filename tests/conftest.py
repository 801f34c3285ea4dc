from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

# A shell that starts a job in the background has it ignore Ctrl-C, and so would the processes that
# tests start to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def segment_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Path:
    """No test shares memory with another one, or with a service of the user who runs them."""
    path = tmp_path_factory.getbasetemp() / "segments" / os.urandom(8).hex()
    monkeypatch.setenv("MEMGUARD_DIR", str(path))
    monkeypatch.delenv("MEMGUARD_NAMESPACE", raising=False)
    path.parent.mkdir(exist_ok=True)
    os.chmod(path.parent, stat.S_IRWXU)
    return path
