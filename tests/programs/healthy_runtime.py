"""Healthy services that are hard on the runtime: forks, threads, the collector, the event loop."""

import asyncio
import gc
import os
import threading
from random import Random

from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import (
    MB,
    Pace,
    Traffic,
    buffer_request,
    constant,
    object_request,
    wave,
)


@healthy("ok_forks", "a child is forked each minute, works on its copy and ends; 80 MB of own data")
def forks(service: Service) -> Tick:
    random = service.random
    data = [object_request(random)[0] for _ in range(1500)]
    traffic = Traffic(service, constant(25), noise=0.2)
    forked = 0

    def tick() -> None:
        nonlocal forked
        traffic.tick()
        if int(service.minute) > forked:
            forked = int(service.minute)
            child = os.fork()
            if child == 0:
                sum(len(str(rows)) for rows in data[:20])
                os._exit(0)
            os.waitpid(child, 0)

    return tick


@healthy("ok_freeze_once", "gc.freeze() after start-up, later only cyclic garbage of the traffic")
def freeze_once(service: Service) -> Tick:
    random = service.random
    kept = [object_request(random)[0] for _ in range(1000)]
    gc.freeze()
    traffic = Traffic(service, wave(45, 10, 40), request=object_request)

    def tick() -> None:
        traffic.tick()
        for _ in range(300):
            cycle: list[object] = [random.random() for _ in range(30)]
            cycle.append((cycle, len(kept)))

    return tick


@healthy("ok_rare_collections", "cyclic garbage of 60 MB that is collected every 30 minutes only")
def rare_collections(service: Service) -> Tick:
    gc.set_threshold(0)
    traffic = Traffic(service, constant(20), noise=0.1)
    pace = Pace(service, 120, 12 * 1024)
    collected = 0

    def tick() -> None:
        nonlocal collected
        traffic.tick()
        for _ in range(pace.due()):
            cycle: list[object] = [bytearray(12 * 1024)]
            cycle.append(cycle)
        if int(service.minute) // 30 > collected:
            collected = int(service.minute) // 30
            gc.collect()

    return tick


@healthy("ok_thread_holes", "six threads replace blocks of all sizes: holes in each malloc arena")
def thread_holes(service: Service) -> Tick:
    ready = threading.Barrier(7)

    def work(random: Random) -> None:
        blocks = [bytearray(random.randrange(600, 40_000)) for _ in range(400)]
        while True:
            ready.wait()
            for _ in range(12):
                size = int(600 * random.paretovariate(0.6)) % 100_000 + 600
                blocks[random.randrange(len(blocks))] = bytearray(size)

    for number in range(6):
        seed = service.random.randrange(2**32) + number
        threading.Thread(target=work, args=(Random(seed),), daemon=True).start()
    return ready.wait


@healthy("ok_task_bursts", "bursts of asyncio tasks with buffers, every 7 to 40 minutes")
def task_bursts(service: Service) -> Tick:
    random = service.random
    loop = asyncio.new_event_loop()
    following = 5.0

    async def job() -> int:
        piece, size = buffer_request(random)
        await asyncio.sleep(0.01)
        return size + (piece is None)

    async def burst(count: int) -> None:
        await asyncio.gather(*(job() for _ in range(count)))

    def tick() -> None:
        nonlocal following
        loop.run_until_complete(asyncio.sleep(0))
        if service.minute >= following:
            following += random.uniform(7, 40)
            loop.run_until_complete(burst(random.randrange(100, 900)))

    return tick


@healthy("ok_thread_pool", "threads come with the load and go after 30 idle minutes, 4 to 60")
def thread_pool(service: Service) -> Tick:
    wanted = wave(140, 4, 60)
    traffic = Traffic(service, wave(140, 10, 40), reported=True)
    stops: list[threading.Event] = []

    def live(stop: threading.Event) -> None:
        scratch = bytearray(MB // 4)
        stop.wait()
        scratch.clear()

    def tick() -> None:
        traffic.tick()
        while len(stops) < int(wanted(service.minute)):
            stops.append(threading.Event())
            threading.Thread(target=live, args=(stops[-1],), daemon=True).start()
        while len(stops) > int(wanted(service.minute - 30)) and len(stops) > 4:
            if len(stops) <= int(wanted(service.minute)):
                break
            stops.pop().set()

    return tick
