"""The rule of the package that ours is made after: the newest minus the oldest of 12 samples.

Its formula as it stands, on whole megabytes of resident memory: `(newest - oldest) * 60 / 12`,
judged from the second sample on. An alarm for each minute that it warned in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 12
LIMIT_MB_PER_HOUR = 10.0


def warned(rss_mb: NDArray[np.float64]) -> NDArray[np.bool_]:
    """In which minutes it warns."""
    whole = np.round(rss_mb)
    oldest = whole[np.maximum(0, np.arange(len(whole)) - WINDOW + 1)]
    over: NDArray[np.bool_] = (whole - oldest) * 60 / WINDOW > LIMIT_MB_PER_HOUR
    return over
