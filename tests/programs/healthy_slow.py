"""Healthy services that rise for hours: late caches, ramps, collections that come rarely."""

import gc
import math

from tests.programs.healthy_caches import ENTRY_BYTES, entry
from tests.programs.healthy_load import follow_load
from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import MB, Pace, Traffic, constant, daily, ramp, wave

follow_load(
    "ok_daily_unreported", "a day of 480 minutes, unreported, 15 to 90 MB", daily(480, 15, 90)
)
follow_load(
    "ok_wave_240_noisy",
    "unreported load wave of 240 minutes, 20 to 130 MB, with 25 % noise",
    wave(240, 20, 130, phase=0.75),
    noise=0.25,
)


def two_ramps(minute: float) -> float:
    return ramp(60, 140, 25, 55)(minute) + ramp(220, 300, 0, 30)(minute)


follow_load("ok_two_ramps", "two unreported ramps of 30 MB, each in 80 minutes", two_ramps)


@healthy("ok_late_cache", "from minute 120 on a new tenant's cache fills by 70 MB, ever slower")
def late_cache(service: Service) -> Tick:
    traffic = Traffic(service, constant(35), noise=0.15)
    entries: list[object] = []

    def tick() -> None:
        traffic.tick()
        filled = 1 - math.exp(-max(0.0, service.minute - 120) / 50)
        due = int(70 * MB / ENTRY_BYTES * filled)
        entries.extend(entry(service) for _ in range(due - len(entries)))

    return tick


@healthy("ok_cache_of_traffic", "a cache fills with the day's traffic, full after its morning")
def cache_of_traffic(service: Service) -> Tick:
    shape = daily(480, 10, 70)
    traffic = Traffic(service, shape, reported=True)
    entries: dict[int, object] = {}
    pace = Pace(service, 60, ENTRY_BYTES)
    most = 60 * MB // ENTRY_BYTES

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due(shape(service.minute) / 70)):
            # A key that is there already is a hit: the fuller the cache, the slower it fills.
            entries.setdefault(service.random.randrange(most), entry(service))

    return tick


@healthy("ok_rare_full_collection", "35 MB of cycles gather until a collection each 100 minutes")
def rare_full_collection(service: Service) -> Tick:
    gc.disable()
    traffic = Traffic(service, wave(130, 15, 45))
    pace = Pace(service, 21, 24 * 1024)
    collected = 0

    def tick() -> None:
        nonlocal collected
        traffic.tick()
        for _ in range(pace.due()):
            cycle: list[object] = [bytearray(24 * 1024)]
            cycle.append(cycle)
        if int(service.minute) // 100 > collected:
            collected = int(service.minute) // 100
            gc.collect()

    return tick
