"""The probes, in the order of the table; the docstring of each is the name of its row."""

from __future__ import annotations

from collections.abc import Callable

from bench.corners.adapters import Breaker
from bench.corners.probes import forms, listeners, rejections, tries, verdicts, waits

Probe = Callable[[type[Breaker]], str]

_ORDER: tuple[Probe, ...] = (
    tries.async_crowd,
    tries.thread_crowd,
    verdicts.late_success,
    tries.late_failures,
    tries.cancelled,
    verdicts.cancelled,
    tries.hung,
    verdicts.keyboard_interrupt,
    forms.coroutine_function,
    forms.generator,
    forms.asynchronous_generator,
    forms.without_decorator,
    waits.parallel,
    waits.window,
    listeners.raises,
    tries.ignored,
    waits.frame_locals,
    rejections.traceback_length,
    rejections.time_to_retry,
    rejections.pickled,
    tries.recursion,
    waits.fork,
    forms.methods,
)


def title(probe: Probe) -> str:
    return (probe.__doc__ or "").strip()


def name(probe: Probe) -> str:
    """How the command line calls it: unique, as two modules may have a function of one name."""
    return f"{probe.__module__.rpartition('.')[2]}.{probe.__name__}"


PROBES: dict[str, Probe] = {name(probe): probe for probe in _ORDER}
