"""The slope of a line through the newest samples, by least squares: what most dashboards show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIMIT_MB_PER_HOUR = 10.0


def warned(private_mb: NDArray[np.float64], samples: int) -> NDArray[np.bool_]:
    """In which minutes the slope over so many samples is above the limit."""
    over = np.zeros(len(private_mb), dtype=bool)
    if len(private_mb) >= samples:
        windows = np.lib.stride_tricks.sliding_window_view(private_mb, samples)
        hours = (np.arange(samples) - (samples - 1) / 2) / 60.0
        over[samples - 1 :] = windows @ hours / (hours @ hours) > LIMIT_MB_PER_HOUR
    return over
