"""The memory that all processes of a service share: of the control group, else of the host."""

from __future__ import annotations

from memguard_native import _core
from memguard_native.memory.sample import MemorySample
from memguard_native.recycling.planner import Group

_KIB = 1024


def read_group() -> Group:
    """What of it is taken and cannot be taken back, and its limit; None where not known."""
    sample = MemorySample._make(_core.Probe(load=None, root="").sample())
    if sample.cgroup_limit_bytes is not None:
        return Group(sample.cgroup_private_bytes, sample.cgroup_limit_bytes)
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        total, available = (
            int(rows[name].split()[0]) * _KIB for name in ("MemTotal", "MemAvailable")
        )
    except (OSError, KeyError, ValueError):
        return Group(None, None)
    return Group(total - available, total)
