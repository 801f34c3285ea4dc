"""Healthy services whose caches, pools and buffers fill for hours and are bounded."""

import functools
import logging
import logging.handlers
import math
from collections import OrderedDict, deque

from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import MB, Pace, Traffic, constant, object_request, ramp, walk, wave


def entry(service: Service) -> dict[str, list[float]]:
    """A cache entry of 1,080 bytes (measured): a dict with a list of floats."""
    return {"rows": [service.random.random() for _ in range(20)]}


ENTRY_BYTES = 1_080


def fill(name: str, note: str, mb: float, minutes: float, *, load: float = 30.0) -> None:
    """Enters a service with a cache that fills by `mb` in so many minutes at an even pace."""

    def build(service: Service) -> Tick:
        traffic = Traffic(service, constant(load), noise=0.15)
        entries: list[object] = []
        pace = Pace(service, mb / minutes * 60, ENTRY_BYTES)

        def tick() -> None:
            traffic.tick()
            if service.minute <= minutes:
                entries.extend(entry(service) for _ in range(pace.due()))

        return tick

    healthy(name, note)(build)


fill("ok_fill_1h", "a cache fills by 100 MB in one hour at an even pace, then stays", 100, 60)
fill("ok_fill_2h", "a cache fills by 50 MB in two hours at an even pace, then stays", 50, 120)
fill("ok_fill_3h", "a cache fills by 48 MB in three hours at an even pace, then stays", 48, 180)
fill("ok_fill_4h", "a cache fills by 36 MB in four hours: 9 MB/h, then stays", 36, 240)


def approach(name: str, note: str, mb: float, tau: float) -> None:
    """Enters a service with a cache that fills exponentially: hits rise as it fills."""

    def build(service: Service) -> Tick:
        traffic = Traffic(service, wave(35, 20, 40))
        entries: list[object] = []

        def tick() -> None:
            traffic.tick()
            due = mb * MB / ENTRY_BYTES * (1 - math.exp(-service.minute / tau))
            entries.extend(entry(service) for _ in range(int(due) - len(entries)))

        return tick

    healthy(name, note)(build)


approach("ok_approach_60", "a cache approaches 120 MB with a time constant of 60 minutes", 120, 60)
approach("ok_approach_120", "a cache approaches 60 MB with a time constant of 120 minutes", 60, 120)


@healthy("ok_vocabulary", "a table of words seen grows with the square root of time to 50 MB")
def vocabulary(service: Service) -> Tick:
    words: dict[str, int] = {}

    def tick() -> None:
        due = 50 * MB / 135 * math.sqrt(service.minute / 420)
        for number in range(len(words), int(due)):
            words[f"word{number:012d}"] = number

    return tick


@healthy("ok_lru_skewed", "functools.lru_cache of 30,000 entries under skewed keys: about 35 MB")
def lru_skewed(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, constant(30), noise=0.2, reported=True)

    @functools.lru_cache(maxsize=30_000)
    def look_up(key: int) -> dict[str, list[float]]:
        return entry(service)

    def tick() -> None:
        traffic.tick()
        for _ in range(900):
            look_up(int(random.paretovariate(0.45)) % 300_000)

    return tick


def expire(name: str, note: str, lifetime: float, mb: float, *, reported: bool = False) -> None:
    """Enters a service with a cache whose entries live so many minutes; about `mb` when full."""

    def build(service: Service) -> Tick:
        traffic = Traffic(service, constant(30), noise=0.3, reported=reported)
        cache: OrderedDict[int, tuple[float, object]] = OrderedDict()
        pace = Pace(service, mb / lifetime * 60, ENTRY_BYTES + 200)
        # The pace of new keys is not even: it has its own noise from minute to minute.
        factor = walk(service.random, 0.6, 1.4, 0.1, pull=0.2)
        keys = 0

        def tick() -> None:
            nonlocal keys
            traffic.tick()
            while cache and next(iter(cache.values()))[0] < service.minute - lifetime:
                cache.popitem(last=False)
            for _ in range(pace.due(factor(service.minute))):
                keys += 1
                cache[keys] = (service.minute, entry(service))

        return tick

    healthy(name, note)(build)


expire("ok_ttl_20", "cache with a lifetime of 20 minutes, 40 MB when full", 20, 40, reported=True)
expire("ok_ttl_90", "cache with a lifetime of 90 minutes, 60 MB when full", 90, 60)
expire("ok_ttl_150", "cache with a lifetime of 150 minutes, 45 MB when full", 150, 45)


@healthy("ok_ring_150", "a ring of the last events fills by 50 MB in 150 minutes, then turns")
def ring(service: Service) -> Tick:
    traffic = Traffic(service, wave(90, 20, 45))
    events: deque[object] = deque(maxlen=50 * MB // ENTRY_BYTES)
    pace = Pace(service, 20, ENTRY_BYTES)

    def tick() -> None:
        traffic.tick()
        events.extend(entry(service) for _ in range(pace.due()))

    return tick


@healthy("ok_bound_then_evict", "a table grows by 40 MB in 100 minutes, then half of it is evicted")
def bound_then_evict(service: Service) -> Tick:
    traffic = Traffic(service, constant(25), noise=0.1)
    table: OrderedDict[int, object] = OrderedDict()
    pace = Pace(service, 24, ENTRY_BYTES + 150)
    bound = 40 * MB // (ENTRY_BYTES + 150)
    keys = 0

    def tick() -> None:
        nonlocal keys
        traffic.tick()
        for _ in range(pace.due()):
            keys += 1
            table[keys] = entry(service)
        if len(table) > bound:
            for _ in range(bound // 2):
                table.popitem(last=False)

    return tick


@healthy("ok_connection_pool", "a pool grows with its demand to at most 120 connections of 256 KB")
def connection_pool(service: Service) -> Tick:
    random = service.random
    demand = ramp(20, 330, 20, 150)
    pool: list[bytearray] = []

    def tick() -> None:
        wanted = demand(service.minute) * random.gauss(1, 0.15)
        while len(pool) < min(120, int(wanted)):
            pool.append(bytearray(256 * 1024))

    return tick


@healthy("ok_log_buffer", "log records gather to 20,000 and are written: 36 minutes, 14 MB")
def log_buffer(service: Service) -> Tick:
    traffic = Traffic(service, constant(30), noise=0.1, request=object_request)
    handler = logging.handlers.MemoryHandler(
        20_000, flushLevel=logging.CRITICAL, target=logging.NullHandler()
    )
    logger = logging.Logger("service")
    logger.addHandler(handler)

    def tick() -> None:
        traffic.tick()
        for number in range(110):
            logger.info("request %d took %.3f ms", number, service.random.random())

    return tick
