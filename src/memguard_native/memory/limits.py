"""What memory of a process will run into, and sizes as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memguard_native.errors import ConfigError

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How much memory there is, and who says so."""

    bytes: int
    source: str


def parse_size(text: str) -> int:
    """Bytes. Raises ConfigError: it is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError("size", text, 'must be a size such as "512MiB" or "2GiB"')
    return round(float(found[1]) * 1024.0 ** _UNITS[found[2].upper()])
