"""A regression per hour, as production systems at scale do it, simplified: RESIN (OSDI 2022) takes
the trend of a service over hours, Precog (arXiv 2101.09799) looks for lines that go on.

An alarm where the lines of the newest hour and of the hour before both rise faster than the limit,
each explaining most of its hour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIMIT_MB_PER_HOUR = 10.0
MINUTES = 60
LEAST_R_SQUARED = 0.5


def warned(private_mb: NDArray[np.float64]) -> NDArray[np.bool_]:
    """In which minutes two such hours have ended."""
    over = np.zeros(len(private_mb), dtype=bool)
    if len(private_mb) < 2 * MINUTES:
        return over
    windows = np.lib.stride_tricks.sliding_window_view(private_mb, MINUTES)
    centred = windows - windows.mean(axis=1, keepdims=True)
    hours = (np.arange(MINUTES) - (MINUTES - 1) / 2) / 60.0
    slopes = centred @ hours / (hours @ hours)
    explained = slopes**2 * (hours @ hours)
    variation = np.maximum((centred**2).sum(axis=1), 1e-12)
    rising = (slopes > LIMIT_MB_PER_HOUR) & (explained / variation >= LEAST_R_SQUARED)
    over[2 * MINUTES - 1 :] = rising[MINUTES:] & rising[:-MINUTES]
    return over
