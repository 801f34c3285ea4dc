"""Leaks that something else hides: a decline, a wave, a cache, a pause."""

from collections import deque

from tests.programs.leaks_native import filled
from tests.programs.registry import Service, Tick, leaking
from tests.programs.shapes import Pace, Traffic, buffer_request, constant, wave


def row(service: Service) -> list[float]:
    """A row of 970 bytes, measured: a list of 22 floats."""
    return [service.random.random() for _ in range(22)]


ROW_BYTES = 970


@leaking(
    "leak_under_decline_25",
    "python-objects",
    25,
    "sessions that never end, while 200 MB of start-up data are dropped within four hours",
)
def under_decline(service: Service) -> Tick:
    random = service.random
    start_up = deque(buffer_request(random)[0] for _ in range(3200))
    kept: list[list[float]] = []
    pace = Pace(service, 25, ROW_BYTES)

    def tick() -> None:
        while start_up and len(start_up) > 3200 * (1 - service.minute / 240):
            start_up.popleft()
        kept.extend(row(service) for _ in range(pace.due()))

    return tick


@leaking(
    "leak_against_wave_25",
    "native-heap",
    25,
    "C blocks that are never freed, under an unreported load wave of 480 minutes that first falls",
)
def against_wave(service: Service) -> Tick:
    traffic = Traffic(service, wave(480, 20, 110, phase=0.25))
    pace = Pace(service, 25, 4_096)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            filled(4_080)

    return tick


@leaking(
    "leak_beside_cache_30",
    "python-objects",
    30,
    "finished jobs stay in a list, beside a cache with a lifetime of 90 minutes that takes 50 MB",
)
def beside_cache(service: Service) -> Tick:
    traffic = Traffic(service, constant(30), noise=0.2)
    cache: deque[tuple[float, list[float]]] = deque()
    jobs: list[list[float]] = []
    cached, leaked = Pace(service, 33, ROW_BYTES + 70), Pace(service, 30, ROW_BYTES)

    def tick() -> None:
        traffic.tick()
        while cache and cache[0][0] < service.minute - 90:
            cache.popleft()
        cache.extend((service.minute, row(service)) for _ in range(cached.due()))
        jobs.extend(row(service) for _ in range(leaked.due()))

    return tick


@leaking(
    "leak_by_shift_25",
    "python-objects",
    25,
    "leaks 44 MB/h for 90 minutes, then rests for 90: a job that runs in shifts; reported wave",
    steady=False,
)
def by_shift(service: Service) -> Tick:
    traffic = Traffic(service, wave(180, 15, 70), reported=True)
    kept: list[list[float]] = []
    # 4 of 7 hours are shifts.
    pace = Pace(service, 25 * 7 / 4, ROW_BYTES)

    def tick() -> None:
        traffic.tick()
        working = int(service.minute) // 90 % 2 == 0
        kept.extend(row(service) for _ in range(pace.due(1.0 if working else 0.0)))

    return tick
