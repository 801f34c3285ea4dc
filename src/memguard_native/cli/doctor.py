"""`memguard doctor`: looks at what the package needs around it, and says what to do about it.

Exit codes: 0 nothing serious; 1 a serious finding: a file or a directory that is not safe or cannot
be used; 2 wrong usage.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from memguard_native.segment import Segment

_SCHEMA = 1
# The supervisor keeps a copy of each connection that is on its way to another worker.
_ENOUGH_DESCRIPTORS = 4096
_CGROUPS = "/sys/fs/cgroup"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "doctor",
        help="check the surroundings, and remove shared files that nobody uses",
        description="Check what the package needs around it: the directory of shared files, each "
        "file in it, and who uses it; malloc, what the system limits, and uvicorn. Each finding "
        "comes with its cure.",
        epilog="Exit codes: 0 nothing serious, 1 a serious finding, 2 wrong usage.",
    )
    add = parser.add_argument
    add("--clean", action="store_true", help="remove segments whose owners are all gone")
    add("--json", action="store_true", help="one object, with a schema number")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    text: str
    cure: str | None = None
    is_serious: bool = False
    facts: dict[str, Any] | None = None
    """What `text` says, for programs: of a segment that can be used, and of malloc."""


def run(options: argparse.Namespace) -> int:
    """Look, clean if asked, and print. Raises nothing of its own."""
    import json

    from memguard_native.cli.printing import shown

    removed = _clean() if options.clean else []
    findings = [
        *_of_directory(),
        *_of_segments(),
        *_of_left_overs(),
        _of_allocator(),
        _of_descriptors(),
        *_of_group_kill(),
        _of_uvicorn(),
    ]
    if options.json:
        found: dict[str, Any] = {
            "schema": _SCHEMA,
            "removed": removed,
            "findings": [one._asdict() for one in findings],
        }
        print(json.dumps(found))
    else:
        for path in removed:
            print(f"removed  {shown(path)}")
        for one in findings:
            mark = "SERIOUS" if one.is_serious else "ok"
            cure = "" if one.cure is None else f"\n         {shown(one.cure)}"
            print(f"{mark:8} {shown(one.subject)}: {shown(one.text)}{cure}")
    return 1 if any(one.is_serious for one in findings) else 0


def _clean() -> list[str]:
    import sys

    from memguard_native import segment as segments
    from memguard_native.cli.printing import shown
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
                print(f"memguard: not removed: {shown(str(error))}", file=sys.stderr)
    return removed


def _of_directory() -> list[Finding]:
    import os
    import stat
    import sys

    from memguard_native import segment as segments
    from memguard_native.errors import SegmentError

    directory = segments.directory()
    if not sys.platform.startswith("linux"):
        cure = "scope='host' is local on this system"
        return [Finding("shared memory", "is for Linux so far", cure)]
    if not os.path.lexists(directory):
        return [Finding(str(directory), "no process shares anything yet")]
    try:
        segments.check_directory(directory)
    except SegmentError as error:
        return [Finding(error.path, error.problem, error.cure, is_serious=True)]
    found, space = directory.stat(), os.statvfs(directory)
    free = space.f_bavail * space.f_frsize / 2**20
    mode = stat.S_IMODE(found.st_mode)
    return [
        Finding(str(directory), f"{free:.0f} MiB free; of user {found.st_uid}, mode {mode:04o}")
    ]


def _of_segments() -> list[Finding]:
    from memguard_native import segment as segments

    return [finding for path in segments.paths() for finding in _of_segment(path)]


def _of_segment(path: Path) -> list[Finding]:
    from memguard_native import segment as segments
    from memguard_native.errors import SegmentError

    found = []
    try:
        found.append(_of_usable(segments.look_at(path)))
    except SegmentError as error:
        found.append(Finding(str(path), error.problem, error.cure, is_serious=True))
    damaged = path.with_name(path.name + ".damaged")
    if damaged.exists():
        cure = "look into it, report it, and remove it by hand"
        found.append(Finding(str(damaged), "was damaged, and replaced", cure))
    return found


def _of_usable(segment: Segment) -> Finding:
    import time

    from memguard_native import _core

    header = segment.core.header()
    is_known = segment.is_of_this_pid_namespace  # else its numbers are other processes' here
    owners = [
        {
            "slot": one["slot"],
            "pid": one["pid"],
            "is_alive": one["is_alive"] if is_known else None,
            "generation": one["generation"],
            "learnt": one["learnt"],
        }
        for one in segment.core.workers()
        if one["pid"] is not None
    ]
    facts = {
        "namespace": segment.namespace,
        "bytes": header["bytes"],
        "breakers": len(segment.core.breaker_names()),
        "owners": owners,
        "created": header["created"],
        "creator": header["creator"],
        "repairs": header["repairs"],
    }
    told = [f"{one['pid']} in slot {one['slot']}{_remarks(one)}" for one in owners]
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(header["created"]))
    text = (
        f"{facts['breakers']} of {_core.SEGMENT_BREAKERS} breakers; owners: "
        f"{', '.join(told) or 'none'}; {header['bytes'] / 2**20:.1f} MiB, made {made} by process "
        f"{header['creator']}"
    )
    if header["repairs"]:
        text += f"; {header['repairs']} times something in it was damaged and not used"
    cure = None
    if not is_known:
        text += "; of another process namespace, so that nobody here can tell who lives"
        cure = "run memguard doctor where its processes run"
    elif not any(one["is_alive"] for one in owners):
        cure = "nobody uses it: memguard doctor --clean removes it"
    return Finding(str(segment.path), text, cure, facts=facts)


def _remarks(owner: dict[str, Any]) -> str:
    from memguard_native.cli.printing import learnt_in_words

    remarks = ["dead"] if owner["is_alive"] is False else []
    if owner["learnt"] is not None and owner["learnt"]["state"] == "alert":
        remarks.append(learnt_in_words(owner))
    return f" ({', '.join(remarks)})" if remarks else ""


def _of_left_overs() -> list[Finding]:
    from memguard_native import segment as segments

    cure = "memguard doctor --clean removes it"
    return [
        Finding(str(path), "left over, of use to nobody", cure) for path in segments.left_overs()
    ]


def _of_allocator() -> Finding:
    from memguard_native import _core

    name = _core.allocator_name()
    facts = {"allocator": name}
    if name == "unknown":
        cure = "glibc from 2.33 on, and jemalloc, tell free memory from memory in use"
        return Finding("malloc", "unknown, so that it cannot be asked", cure, facts=facts)
    if name == "mimalloc":
        return Finding("malloc", "mimalloc, which does not tell what is free", facts=facts)
    return Finding("malloc", name, facts=facts)


def _of_descriptors() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = {"soft": soft, "hard": hard}
    # It is -1 where there is none.
    text = f"{soft} for a process, which may raise it to {hard if hard >= 0 else 'any number'}"
    cure = None
    if 0 <= hard < _ENOUGH_DESCRIPTORS:
        cure = (
            f"each connection takes one, and so does handing it over: allow {_ENOUGH_DESCRIPTORS} "
            "or more (systemd: LimitNOFILE=, docker: --ulimit nofile=, a shell: ulimit -Hn)"
        )
    return Finding("file descriptors", text, cure, facts=facts)


def _of_group_kill() -> list[Finding]:
    """Of memory.oom.group of this process's control group and those that it lies in."""
    killing = [path for path in _group_kill_files() if _text(path).strip() == "1"]
    if not killing:
        return []
    text = "is 1: where memory runs out, the kernel kills the supervisor along with its workers"
    cure = (
        "have it kill one process alone (systemd: OOMPolicy=continue; Kubernetes: "
        "singleProcessOOMKill of the kubelet; else write 0)"
    )
    return [Finding(str(path), text, cure) for path in killing]


def _group_kill_files() -> list[Path]:
    from pathlib import Path

    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        if number == "0":  # of version 2; version 1 has no such file
            top = Path(_CGROUPS)
            leaf = top / rest.partition(":")[2].lstrip("/")
            inside = leaf if ".." not in leaf.parts else top
            above = [one for one in inside.parents if one == top or top in one.parents]
            return [one / "memory.oom.group" for one in (inside, *above)]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _of_uvicorn() -> Finding:
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec("uvicorn") is None:
        cure = "memguard serve needs it: pip install 'memguard-native[serve]'"
        return Finding("uvicorn", "is not installed", cure, facts={"version": None})
    from memguard_native.recycling.contract import broken_hooks

    version, broken = importlib.metadata.version("uvicorn"), broken_hooks()
    facts = {"version": version, "broken_hooks": broken}
    if broken:
        text = f"{version} has changed, so that connections are closed and not handed over: "
        cure = "install one that is supported: pip install 'memguard-native[serve]'; and report it"
        return Finding("uvicorn", text + "; ".join(broken), cure, facts=facts)
    return Finding("uvicorn", f"{version}, connections can be handed over", facts=facts)
