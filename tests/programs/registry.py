"""The programs by name, each with what is true about it.

A program is a function that takes the `Service`, builds what the service holds, and returns its
tick: a function without arguments that is called five times a minute.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

MODULES = (
    "leaks_python",
    "leaks_runtime",
    "leaks_native",
    "leaks_maps",
    "leaks_hidden",
    "healthy_load",
    "healthy_caches",
    "healthy_jobs",
    "healthy_runtime",
    "healthy_slow",
    "blind_leaks",
    "blind_healthy",
)


class Service:
    """What a program may use: random numbers, the compressed minute, the load it reports."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.minute = 0.0
        # 0 = not reported.
        self.load = 0.0


Tick = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is true about a program; the fields are the columns of labels.csv.

    `mb_per_hour` is the rate from `onset` on, measured at equal load; `steady`: it is constant.
    """

    name: str
    build: Callable[[Service], Tick]
    leak: bool
    cause: str = ""
    also: str = ""
    mb_per_hour: float = 0.0
    onset: int = 0
    steady: bool = True
    minutes: int = 420
    note: str

    def label(self) -> dict[str, object]:
        """Its row in labels.csv."""
        return {
            "name": self.name,
            "leak": "yes" if self.leak else "no",
            "cause": self.cause,
            "also": self.also,
            "mb_per_hour": f"{self.mb_per_hour:g}",
            "onset": self.onset if self.leak else "",
            "steady": ("yes" if self.steady else "no") if self.leak else "",
            "samples": self.minutes,
            "note": self.note,
        }


PROGRAMS: dict[str, Program] = {}


def leaking(
    name: str,
    cause: str,
    mb_per_hour: float,
    note: str,
    *,
    onset: int = 0,
    also: str = "",
    steady: bool = True,
    minutes: int = 420,
) -> Callable[[Callable[[Service], Tick]], Callable[[Service], Tick]]:
    """Enters a program that leaks `mb_per_hour` from minute `onset` on."""

    def enter(build: Callable[[Service], Tick]) -> Callable[[Service], Tick]:
        PROGRAMS[name] = Program(
            name=name,
            build=build,
            leak=True,
            cause=cause,
            also=also,
            mb_per_hour=mb_per_hour,
            onset=onset,
            steady=steady,
            minutes=minutes,
            note=note,
        )
        return build

    return enter


def healthy(
    name: str, note: str, *, mb_per_hour: float = 0.0
) -> Callable[[Callable[[Service], Tick]], Callable[[Service], Tick]]:
    """Enters a program that must not be called leaking; `mb_per_hour` stays below the threshold."""

    def enter(build: Callable[[Service], Tick]) -> Callable[[Service], Tick]:
        PROGRAMS[name] = Program(
            name=name, build=build, leak=False, mb_per_hour=mb_per_hour, note=note
        )
        return build

    return enter


def load_programs(*modules: str) -> dict[str, Program]:
    """The programs by name: all that are recorded, and those of other modules."""
    for module in (*MODULES, *modules):
        importlib.import_module(f"tests.programs.{module}")
    return PROGRAMS
