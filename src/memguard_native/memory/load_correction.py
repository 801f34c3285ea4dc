"""How much memory a unit of load takes, so that a busy hour is not mistaken for a leak.

What is looked at are changes from one minute to the next: a leak, a warm-up or a cache that fills
hardly changes within a minute, while the load of a service does, and the memory of its requests
with it. So nothing that grows slowly can be put down to a load that happens to grow as well, as a
fit of memory over load would do (a leak in proportion to the traffic of a morning, for one).

Pure functions on arrays.
"""

from __future__ import annotations

import numpy as np

from memguard_native.memory.minutes import Column
from memguard_native.memory.slopes import median

_LEAST_CHANGES = 20
# A load that is reported as a mean over minutes shows in blocks only.
_BLOCK_MINUTES = 8
_LEAST_BLOCK_CHANGES = 10
# What a true dependence leaves of the movement: 5 to 45 % in recorded services. What a chance one
# leaves is more than all of it.
_LEAST_EXPLAINED = 0.2
# Load and memory are not read at the very same instant, so a peak of load of one minute may not be
# in the memory at all; taking it off would make a hole in the floor.
_ALIGNMENT_MINUTES = 3


def memory_per_load(live: Column, load: Column) -> float:
    """MB per unit of load; both are one per minute, oldest first, NaN where not known.

    0 if memory does not clearly depend on the load.
    """
    per_load = _per_change(live, load, _LEAST_CHANGES)
    if per_load == 0.0:
        per_load = _per_change(_block_medians(live), _block_medians(load), _LEAST_BLOCK_CHANGES)
    return per_load


def without_load(values: Column, load: Column, per_load: float) -> Column:
    """`values` less the memory that the load took, the least load of three minutes each."""
    if per_load == 0.0:
        return values
    least = load.copy()
    for shift in range(1, _ALIGNMENT_MINUTES):
        least[shift:] = np.fmin(least[shift:], load[:-shift])
    corrected: Column = values - per_load * least
    return corrected


def _per_change(memory: Column, load: Column, least_changes: int) -> float:
    """The weighted median of change of memory by change of load: the line through the changes with
    the least sum of absolute residuals, so that a jump or a collection does not move it.
    """
    known = ~np.isnan(load) & ~np.isnan(memory)
    if np.count_nonzero(known) <= least_changes:
        return 0.0
    load_changes, memory_changes = _unusual_changes(load[known]), _unusual_changes(memory[known])
    # What is smaller is what rounding leaves of a load that rises evenly.
    moving = np.abs(load_changes) > 1e-9 * np.abs(load[known]).max()
    if np.count_nonzero(moving) < least_changes:
        return 0.0
    ratios = memory_changes[moving] / load_changes[moving]
    order = np.argsort(ratios)
    weights = np.abs(load_changes[moving])[order].cumsum()
    per_load = float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
    rest = _spread(memory_changes - per_load * load_changes)
    clear = per_load > 0 and rest <= (1 - _LEAST_EXPLAINED) * _spread(memory_changes)
    return per_load if clear else 0.0


def _unusual_changes(values: Column) -> Column:
    # Less the usual one: what a leak or a ramp of load adds to each.
    changes = np.diff(values)
    unusual: Column = changes - median(changes)
    return unusual


def _spread(values: Column) -> float:
    return median(np.abs(values - median(values)))


def _block_medians(values: Column) -> Column:
    count = len(values) // _BLOCK_MINUTES
    blocks = values[len(values) - count * _BLOCK_MINUTES :].reshape(count, _BLOCK_MINUTES)
    medians: Column = np.median(blocks, axis=1)  # NaN where a minute is missing: then it is out
    return medians
