"""Healthy services with jobs: memory comes and goes, and the heap's high water with it."""

import math

from tests.programs.leaks_native import filled
from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import MB, Pace, Traffic, constant, object_request, wave


def jobs(name: str, note: str, every: int, first_mb: float, more_mb: float, lasts: int) -> None:
    """Enters a service whose job holds `first_mb` each `every` minutes, later more each time."""

    def build(service: Service) -> Tick:
        random = service.random
        traffic = Traffic(service, constant(35), noise=0.15)
        held: list[object] = []
        held_bytes = 0.0

        def tick() -> None:
            nonlocal held_bytes
            traffic.tick()
            number, into = divmod(service.minute, every)
            if number == 0 or into > lasts:
                held.clear()
                held_bytes = 0
                return
            target = (first_mb + more_mb * (number - 1)) * MB * min(1.0, into / (lasts / 2))
            while held_bytes < target:
                piece, size = object_request(random)
                held.append((piece, bytearray(size)))
                held_bytes += 2 * size

        return tick

    healthy(name, note)(build)


jobs("ok_jobs_60", "a job of 8 minutes each hour, from 50 to 80 MB: each 6 MB more", 60, 50, 6, 8)
jobs("ok_jobs_120", "a job of 20 minutes every two hours, from 80 to 140 MB", 120, 80, 30, 20)
jobs("ok_jobs_180", "a job of 50 minutes every three hours, 90 then 120 MB", 180, 90, 30, 50)


@healthy("ok_warm_up_90", "250 MB of data are loaded in the first 90 minutes")
def warm_up(service: Service) -> Tick:
    traffic = Traffic(service, constant(25), noise=0.2)
    data: list[object] = []
    loaded = 0

    def tick() -> None:
        nonlocal loaded
        traffic.tick()
        while loaded < 250 * MB * min(1.0, service.minute / 90):
            piece, size = object_request(service.random)
            data.append((piece, bytearray(3 * size)))
            loaded += 4 * size

    return tick


@healthy("ok_model_reload", "every two hours a model of about 100 MB is loaded beside the old one")
def model_reload(service: Service) -> Tick:
    import numpy

    traffic = Traffic(service, wave(75, 20, 60))
    layers: list[object] = []
    coming: list[object] = []
    generation = 0

    def tick() -> None:
        nonlocal generation, layers, coming
        traffic.tick()
        due = 1 + int(service.minute) // 120
        if due > generation:
            # 24 layers of 4 MB, two at each tick.
            coming.extend(numpy.full(4 * MB, due, dtype=numpy.uint8) for _ in range(2))
            if len(coming) >= 24 + due % 2:
                layers, coming, generation = coming, [], due

    return tick


@healthy("ok_batch_gather", "rows gather for 100 minutes (40 MB), are written and dropped")
def batch_gather(service: Service) -> Tick:
    random = service.random
    batch: list[object] = []
    gathered = 0
    batches = 0

    def tick() -> None:
        nonlocal gathered, batches
        if int(service.minute) // 100 > batches:
            batches = int(service.minute) // 100
            batch.clear()
            gathered = 0
        while gathered < 40 * MB * (service.minute % 100) / 100:
            piece, size = object_request(random)
            batch.append(piece)
            gathered += size

    return tick


@healthy("ok_slow_decline", "200 MB of start-up structures are dropped bit by bit in 5 hours")
def slow_decline(service: Service) -> Tick:
    traffic = Traffic(service, wave(60, 15, 45))
    random = service.random
    # In random order, so that holes appear all over the heap.
    structures = [(object_request(random)[0], bytearray(48 * 1024)) for _ in range(2000)]
    random.shuffle(structures)

    def tick() -> None:
        traffic.tick()
        left = 2000 * math.exp(-service.minute / 120)
        del structures[int(left) :]

    return tick


@healthy("ok_growth_4_native", "4 MB/h of C memory under an unreported load wave", mb_per_hour=4)
def growth_native(service: Service) -> Tick:
    traffic = Traffic(service, wave(150, 20, 60))
    pace = Pace(service, 4, 8 * 1024)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            filled(8 * 1024 - 16)

    return tick


@healthy("ok_growth_6", "6 MB/h of Python objects, no load", mb_per_hour=6)
def growth(service: Service) -> Tick:
    rows: list[list[float]] = []
    pace = Pace(service, 6, 970)

    def tick() -> None:
        for _ in range(pace.due()):
            rows.append([service.random.random() for _ in range(22)])

    return tick
