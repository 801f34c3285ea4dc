"""Slopes that a few wild values do not move: medians over pairs, and a test for a trend.

Theil (1950) and Sen (1968): the slope of a line is the median of the slopes between any two points.
Mann (1945) and Kendall (1975): a series has a trend if more pairs rise than chance would have it.
Pure functions on arrays.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memguard_native.memory.minutes import Column

_Indices = NDArray[np.intp]


@lru_cache(maxsize=32)
def _pairs(count: int) -> tuple[_Indices, _Indices]:
    first, second = np.triu_indices(count, 1)
    return first, second


def quantile(ordered: Column, share: float) -> float:
    """The value that this share of the others is below, between two of them if need be.

    `ordered`: in order, at least one, none NaN. numpy's own takes ten times as long for the few
    values that there are here, and a step of the detector takes many.
    """
    place = share * (len(ordered) - 1)
    below = int(place)
    lower, upper = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return lower + (place - below) * (upper - lower)


def median(values: Column) -> float:
    """Of at least one value, none NaN."""
    return quantile(np.sort(values), 0.5)


def pairwise_slopes(values: Column, at: Column) -> Column:
    """The slope between any two of `values`, which are of these times; NaN ones are left out."""
    first, second = _pairs(len(values))
    slopes: Column = (values[second] - values[first]) / (at[second] - at[first])
    return slopes[~np.isnan(slopes)]


def theil_sen(values: Column, at: Column) -> float:
    """The median of these slopes; NaN if there is none."""
    slopes = pairwise_slopes(values, at)
    return median(slopes) if len(slopes) else float("nan")


def mann_kendall_z(values: Column) -> float:
    """How many standard deviations more pairs rise than fall, without a correction for ties.

    0 for fewer than 3 values; NaN ones are left out.
    """
    known = values[~np.isnan(values)]
    count = len(known)
    if count < 3:
        return 0.0
    first, second = _pairs(count)
    score = float(np.sign(known[second] - known[first]).sum())
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    return float(score - np.sign(score)) / deviation


def rate_of_medians(values: Column, window_minutes: int, blocks: int = 12) -> float:
    """Per hour, over the last `window_minutes` (one value each): the median slope of the medians of
    blocks, which noise within a block does not move. NaN where too little is known.
    """
    recent = values[-window_minutes:]
    edges = np.linspace(0, len(recent), blocks + 1).round().astype(int)
    medians = np.array(
        [
            median(known) if len(known := block[~np.isnan(block)]) else np.nan
            for block in np.split(recent, edges[1:-1])
        ]
    )
    return theil_sen(medians, (edges[:-1] + edges[1:]) / 2.0 / 60.0)
