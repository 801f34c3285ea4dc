"""Theil-Sen's slope above the limit, and a trend by Mann and Kendall's test at p < 0.01.

The textbook's way to find a trend under noise. The test is scipy's: Kendall's tau between memory
and time, one-sided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

LIMIT_MB_PER_HOUR = 10.0
SIGNIFICANCE = 0.01


def warned(private_mb: NDArray[np.float64], samples: int) -> NDArray[np.bool_]:
    """In which minutes there is such a trend over so many samples."""
    over = np.zeros(len(private_mb), dtype=bool)
    first, second = np.triu_indices(samples, 1)
    hours = (second - first) / 60.0
    minutes = np.arange(samples)
    for end in range(samples, len(private_mb) + 1):
        window = private_mb[end - samples : end]
        slopes = (window[second] - window[first]) / hours
        if np.median(slopes) > LIMIT_MB_PER_HOUR:
            trend = kendalltau(minutes, window, alternative="greater")
            over[end - 1] = trend.pvalue < SIGNIFICANCE
    return over
