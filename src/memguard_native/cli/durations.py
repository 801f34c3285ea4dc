"""Durations as people write them: "30s", "15m", "2h", "1d", or seconds."""

from __future__ import annotations

import re

from memguard_native.errors import ConfigError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(field: str, text: str) -> float:
    """Seconds. Raises ConfigError: it is no duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(field, text, 'must be a duration such as "30s", "15m", "2h" or "1d"')
    return float(found[1]) * _SECONDS[found[2]]
