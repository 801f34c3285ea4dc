"""Reads what limits this process besides its control group, for `memory.limits`.

Some 20 us: once a minute, not in the sampler. RLIMIT_AS and the address space can change while the
process runs, so they are read each time. What cannot be read is None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from memguard_native.memory.limits import Surroundings, parse_size

VARIABLE = "MEMGUARD_LIMIT"


def read_surroundings(environ: Mapping[str, str] = os.environ) -> Surroundings:
    """What holds now; MEMGUARD_LIMIT is taken from `environ`.

    Raises ConfigError: MEMGUARD_LIMIT is no size.
    """
    text = environ.get(VARIABLE)
    return Surroundings(
        address_space_limit_bytes=_address_space_limit_bytes(),
        address_space_bytes=_address_space_bytes(),
        variable_bytes=parse_size(text, field=VARIABLE) if text else None,
        host_bytes=_host_bytes(),
    )


def _address_space_limit_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _address_space_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _host_bytes() -> int | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    import psutil

    return int(psutil.virtual_memory().total)
