"""`memguard doctor`: looks at what the package needs around it, and says what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = 1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "doctor",
        help="check the surroundings, and remove shared files that nobody uses",
        description="Check what the package needs around it: the directory of shared files, each "
        "file in it, and who uses it. Each finding comes with its cure.",
        epilog="Exit codes: 0 nothing serious, 1 a serious finding, 2 wrong usage.",
    )
    add = parser.add_argument
    add("--clean", action="store_true", help="remove segments whose owners are all gone")
    add("--json", action="store_true", help="one object, with a schema number")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    is_serious: bool = False
    text: str
    cure: str | None = None


def run(options: argparse.Namespace) -> int:
    """Look, clean if asked, and print. Raises nothing of its own."""
    removed = _clean() if options.clean else []
    findings = [*_of_directory(), *_of_segments(), *_of_left_overs()]
    if options.json:
        found: dict[str, Any] = {
            "schema": _SCHEMA,
            "removed": removed,
            "findings": [asdict(one) for one in findings],
        }
        print(json.dumps(found))
    else:
        for path in removed:
            print(f"removed  {path}")
        for one in findings:
            mark = "SERIOUS" if one.is_serious else "ok"
            cure = "" if one.cure is None else f"\n         {one.cure}"
            print(f"{mark:8} {one.subject}: {one.text}{cure}")
    return 1 if any(one.is_serious for one in findings) else 0


def _clean() -> list[str]:
    from memguard_native import segment as segments
    from memguard_native.errors import SegmentError

    removed = []
    for remove, paths in (
        (segments.remove_if_unused, segments.paths()),
        (segments.remove_left_over, segments.left_overs()),
    ):
        for path in paths:
            try:
                if remove(path):
                    removed.append(str(path))
            except (SegmentError, OSError) as error:
                print(f"memguard: not removed: {error}", file=sys.stderr)
    return removed


def _of_directory() -> list[Finding]:
    from memguard_native import segment as segments
    from memguard_native.errors import SegmentError

    directory = segments.directory()
    if not sys.platform.startswith("linux"):
        cure = "scope='host' is local on this system"
        return [Finding(subject="shared memory", text="is for Linux so far", cure=cure)]
    if not directory.exists():
        return [Finding(subject=str(directory), text="no process shares anything yet")]
    try:
        segments.check_directory(directory)
    except SegmentError as error:
        return [
            Finding(subject=error.path, is_serious=True, text=error.problem, cure=error.cure),
        ]
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize / 2**20
    return [Finding(subject=str(directory), text=f"{free:.0f} MiB free")]


def _of_segments() -> list[Finding]:
    from memguard_native import segment as segments

    return [_of_segment(path) for path in segments.paths()]


def _of_segment(path: Path) -> Finding:
    from memguard_native import _core
    from memguard_native import segment as segments
    from memguard_native.errors import SegmentError

    try:
        segment = segments.look_at(path)
    except SegmentError as error:
        return Finding(subject=str(path), is_serious=True, text=error.problem, cure=error.cure)
    workers = segment.core.workers()
    alive = [str(one["pid"]) for one in workers if one["is_alive"]]
    dead = sum(one["pid"] is not None and not one["is_alive"] for one in workers)
    header = segment.core.header()
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(header["created"]))
    text = (
        f"{len(segment.core.breaker_names())} of {_core.SEGMENT_BREAKERS} breakers; owners: "
        f"{', '.join(alive) or 'none'}{f' and {dead} dead' if dead else ''}; made {made} by "
        f"process {header['creator']}"
    )
    if header["repairs"]:
        text += f"; {header['repairs']} times something in it was damaged and not used"
    cure = None if alive else "nobody uses it: memguard doctor --clean removes it"
    return Finding(subject=str(path), text=text, cure=cure)


def _of_left_overs() -> list[Finding]:
    from memguard_native import segment as segments

    cure = "memguard doctor --clean removes it"
    return [
        Finding(subject=str(path), text="left over, of use to nobody", cure=cure)
        for path in segments.left_overs()
    ]
