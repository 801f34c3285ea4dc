"""`python -m bench.corners`: asks every library every question, and writes docs/corners.md."""

from __future__ import annotations

import argparse
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.corners import table
from bench.corners.adapters import LIBRARIES
from bench.corners.ask import ROOT, ask, version
from bench.corners.probes import PROBES, title


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.corners", description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "corners.md", metavar="FILE")
    page = parser.parse_args().to
    versions = {LIBRARIES[library].package: version(library) for library in LIBRARIES}
    versions[platform.python_implementation()] = platform.python_version()
    text = table.page(ask_all(), versions, f"{datetime.now(UTC):%Y-%m-%d}")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


def ask_all() -> dict[str, dict[str, str]]:
    """One after the other, since some of the answers are times."""
    answers: dict[str, dict[str, str]] = {}
    for number, (name, probe) in enumerate(PROBES.items(), 1):
        answers[name] = {}
        for library in LIBRARIES:
            answers[name][library] = ask(library, name)
            told = f"{title(probe)}: {library}: {answers[name][library]}"
            print(f"{number}/{len(PROBES)} {told}", file=sys.stderr, flush=True)
    return answers


if __name__ == "__main__":
    main()
