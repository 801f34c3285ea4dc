"""`python -m memguard_native` is `memguard`."""

from __future__ import annotations

import sys

from memguard_native.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
