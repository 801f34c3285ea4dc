"""The oldest uvicorn that is supported has every hook; the newest is asked by the unit tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.integration.recycling.service import OLDEST

PROGRAM = """
import json, uvicorn
from memguard_native.recycling.contract import broken_hooks
print(json.dumps([uvicorn.__version__, broken_hooks()]))
"""


def test_the_oldest_uvicorn_has_every_hook():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(OLDEST)},
        capture_output=True,
        check=True,
    )
    assert json.loads(run.stdout) == ["0.30.0", []]
