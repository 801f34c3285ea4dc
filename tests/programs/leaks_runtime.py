"""Leaks through Python's runtime: event loop, contexts, threads, the collector, its allocator."""

import asyncio
import contextvars
import gc
import threading

from tests.programs.registry import Service, Tick, leaking
from tests.programs.shapes import (
    Pace,
    Traffic,
    constant,
    daily,
    object_request,
    walk,
    wave,
)


@leaking(
    "leak_timer_handles_35",
    "python-objects",
    35,
    "asyncio timers that run in a year and hold their request; random reported load",
    onset=120,
)
def timer_handles(service: Service) -> Tick:
    traffic = Traffic(service, walk(service.random, 20, 100, 3.0), reported=True)
    loop = asyncio.new_event_loop()
    pace = Pace(service, 35, 1_360, onset=120)

    async def serve(pieces: int) -> None:
        for number in range(pieces):
            answer = loop.create_future()
            request = {"id": number, "rows": [service.random.random() for _ in range(15)]}
            loop.call_later(366 * 24 * 3600.0, answer.set_result, request)

    def tick() -> None:
        traffic.tick()
        loop.run_until_complete(serve(pace.due()))

    return tick


@leaking(
    "leak_contexts_17",
    "python-objects",
    17,
    "a copy of the context with the request in a context"
    " variable is kept for each request; load with 30 % noise",
)
def contexts(service: Service) -> Tick:
    traffic = Traffic(service, constant(45), noise=0.3)
    current: contextvars.ContextVar[list[float]] = contextvars.ContextVar("current")
    kept: list[contextvars.Context] = []
    pace = Pace(service, 17, 910)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            context = contextvars.copy_context()
            context.run(current.set, [service.random.random() for _ in range(16)])
            kept.append(context)

    return tick


def wait_deep_in_the_stack(depth: int, end: threading.Event) -> bool:
    """Waits below `depth` calls through C, as a real handler does below its framework."""
    if depth == 0:
        return end.wait()
    return all(wait_deep_in_the_stack(depth - 1, end) for _ in (0,))


@leaking(
    "leak_threads_33",
    "mmap",
    33,
    "two threads a minute wait for ever, deep in their stacks; a load wave of 480 minutes",
)
def threads(service: Service) -> Tick:
    traffic = Traffic(service, wave(480, 30, 90, phase=0.75), reported=True)
    end = threading.Event()
    pace = Pace(service, 33, 269_500)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            threading.Thread(target=wait_deep_in_the_stack, args=(220, end), daemon=True).start()

    return tick


class Node:
    """A cycle of two with its payload."""

    def __init__(self, rows: list[float]) -> None:
        self.rows = rows
        self.other = self


@leaking(
    "leak_frozen_garbage_18",
    "python-objects",
    18,
    "gc.freeze() every 10 minutes makes the cyclic"
    " garbage of that moment immortal; a day of 480 minutes as load",
    steady=False,
)
def frozen_garbage(service: Service) -> Tick:
    traffic = Traffic(service, daily(480, 15, 50), noise=0.1)
    gc.set_threshold(100_000, 50, 50)
    pace = Pace(service, 18, 810)
    frozen_at = 0

    def tick() -> None:
        nonlocal frozen_at
        traffic.tick()
        for _ in range(pace.due()):
            Node([service.random.random() for _ in range(16)])
        if int(service.minute) // 10 > frozen_at:
            frozen_at = int(service.minute) // 10
            gc.freeze()

    return tick


@leaking(
    "leak_pool_survivors_32",
    "fragmentation",
    32,
    "batches of records of one length each; when a"
    " batch is done one record in each pool of the Python allocator stays and keeps the pool",
    also="python-objects",
)
def pool_survivors(service: Service) -> Tick:
    # A length is used once: a later batch of the same length would fill the holes. At 14 minutes
    # each the allocator's size classes from 48 to 512 bytes last for 7 hours.
    sizes = list(range(48, 528, 16))
    service.random.shuffle(sizes)
    pace = Pace(service, 32, 16 * 1024)
    survivors: list[bytes] = []
    batch: list[bytes] = []
    batches = 0

    def tick() -> None:
        nonlocal batches, batch
        if int(service.minute) // 14 > batches:
            in_a_pool = (16 * 1024 - 48) // sizes[batches % len(sizes)]
            survivors.extend(batch[in_a_pool // 2 :: in_a_pool])
            batch = []
            batches += 1
        size = sizes[batches % len(sizes)]
        for _ in range(pace.due()):
            # A bytes object has 33 bytes besides its data.
            batch.extend(bytes(size - 34) + b"\x01" for _ in range((16 * 1024 - 48) // size))

    return tick


@leaking(
    "leak_by_traffic_20",
    "python-objects",
    20,
    "a trace span is kept per request: grows with an unreported random load of object requests",
    steady=False,
)
def by_traffic(service: Service) -> Tick:
    shape = walk(service.random, 10, 60, 2.0)
    traffic = Traffic(service, shape, request=object_request)
    spans: list[dict[str, object]] = []
    pace = Pace(service, 20, 298)
    mean = sum(map(shape, range(420))) / 420

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due(shape(service.minute) / mean)):
            spans.append({"start": service.minute, "id": len(spans), "name": f"span {len(spans)}"})

    return tick
