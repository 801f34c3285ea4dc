"""The door of the benchmarks: `python bench/run.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    # The script's own folder gives way to the root, so that `bench` is a package here as in tests.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from bench.command import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
