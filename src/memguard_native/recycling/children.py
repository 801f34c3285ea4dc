"""Processes that a worker has started: they are in its process group, and end with it."""

from __future__ import annotations

import contextlib
import os
import signal


def other_members(group: int) -> list[int]:
    """The process numbers of the group's members, its leader left out; zombies too."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == group:
            continue
        with contextlib.suppress(OSError):
            if os.getpgid(int(name)) == group:
                found.append(int(name))
    return found


def signal_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to all of a group; whether there was anybody."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member has become another user's
        return True
    return True


def os_threads(pid: int | str = "self") -> list[str]:
    """The names of a process's threads, the native ones too."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/comm") as file:
            found.append(file.read().strip())
    return found


def descendants(pid: int) -> list[int]:
    """Its children and theirs, whatever session they are in; without those that lost a parent."""
    found: list[int] = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def children_of(pid: int) -> list[int]:
    """Those that it has started and orphans that it has got; zombies too."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found
