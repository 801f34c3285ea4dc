"""Healthy services for one last, blind judgement (see blind_leaks.py), and the loads of both."""

import gc
import json
import math
import socket
import zlib
from collections import OrderedDict
from random import Random
from xml.dom import minidom

from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import MB, Pace, Shape, Traffic, constant, object_request, ramp

# Load shapes: MB in flight at a minute, as in shapes.py.
TICKS = 5 * 900


def calls(random: Random, mb: float, in_flight: float, minutes: float) -> Shape:
    """Independent calls: so many in flight on average, each for some minutes, of very unequal size.

    Their noise is not from tick to tick: a large call stays as long as it stays.
    """
    levels = [0.0] * TICKS
    start, mean = -10.0 * minutes, math.exp(0.8**2 / 2)
    while start < TICKS / 5:
        start += random.expovariate(in_flight / minutes)
        size = mb / in_flight / mean * random.lognormvariate(0.0, 0.8)
        end = start + random.expovariate(1 / minutes)
        for tick in range(max(0, int(start * 5)), min(TICKS, int(end * 5) + 1)):
            levels[tick] += size
    return lambda minute: levels[int(minute * 5)]


def sluggish(random: Random, mb: float, part: float, minutes: float) -> Shape:
    """Noise of `part` of the mean that forgets itself within so many minutes."""
    keep = math.exp(-0.2 / minutes)
    deviations = [random.gauss(0.0, part)]
    for _ in range(TICKS):
        step = random.gauss(0.0, part * math.sqrt(1 - keep**2))
        deviations.append(keep * deviations[-1] + step)
    return lambda minute: mb * max(0.0, 1 + deviations[int(minute * 5)])


def switching(random: Random, low: float, high: float, minutes: float) -> Shape:
    """A client that is there, then not: both for random times of so many minutes on average."""
    levels: list[float] = []
    while len(levels) < TICKS:
        for level in (low, high):
            levels.extend([level] * (1 + int(random.expovariate(0.2 / minutes))))
    return lambda minute: levels[int(minute * 5)]


@healthy(
    "ok_start_up_55",
    "start-up of 55 minutes: 9 tables of 5 to 40 MB one after the other, with pauses; then idle",
)
def start_up(service: Service) -> Tick:
    random = service.random
    tables: list[list[object]] = []
    starts = sorted(random.uniform(0, 45) for _ in range(9))
    sizes = [random.uniform(5, 40) * MB for _ in range(9)]
    filled = [0.0] * 9

    def tick() -> None:
        for index, start in enumerate(starts):
            if service.minute < start or filled[index] >= sizes[index]:
                continue
            table: list[object] = []
            # A table takes ten minutes: 50 ticks.
            while filled[index] < sizes[index] * min(1.0, (service.minute - start) / 10):
                rows, size = object_request(random)
                table.append((rows, random.randbytes(size)))
                filled[index] += 2 * size
            tables.append(table)
        json.loads(json.dumps({"status": "ok", "tables": len(tables), "minute": service.minute}))

    return tick


@healthy(
    "ok_tile_cache_130",
    "a cache of map tiles of 5 to 120 KB, bounded in bytes, is full with 60 MB after 130 minutes;"
    " unreported load with sluggish noise of 22 %",
)
def tile_cache(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, sluggish(random, 67, 0.22, 10), noise=0.05)
    tiles: OrderedDict[int, bytes] = OrderedDict()
    held, tile = 0, 0
    bytes_due = Pace(service, 60 / 130 * 60, 1)
    due = 0

    def tick() -> None:
        nonlocal held, tile, due
        traffic.tick()
        due += bytes_due.due()
        while due > 0:
            tile += 1
            tiles[tile] = bytes(random.randrange(5, 120) * 1024)
            due -= len(tiles[tile])
            held += len(tiles[tile])
        while held > 60 * MB:
            held -= len(tiles.popitem(last=False)[1])

    return tick


@healthy(
    "ok_sliding_lifetime_35",
    "sessions end 35 minutes after their last request; their number follows the reported calls",
)
def sliding_lifetime(service: Service) -> Tick:
    random = service.random
    shape = calls(random, 30, 45, 5)
    traffic = Traffic(service, shape, noise=0, reported=True)
    sessions: OrderedDict[int, tuple[float, dict[str, object]]] = OrderedDict()
    pace = Pace(service, 40, 2_400)
    seen = 0

    def tick() -> None:
        nonlocal seen
        traffic.tick()
        for _ in range(pace.due(shape(service.minute) / 30)):
            seen += 1
            articles = [random.randrange(10**6) for _ in range(7)]
            basket = [{"article": article, "price": random.random()} for article in articles]
            sessions[seen] = (service.minute, {"basket": basket, "token": random.randbytes(400)})
        for _ in range(40):
            # The younger a session, the likelier its next request.
            key = seen - int(random.expovariate(1 / 3_000))
            if key in sessions:
                sessions[key] = (service.minute, sessions[key][1])
                sessions.move_to_end(key)
        while sessions and next(iter(sessions.values()))[0] < service.minute - 35:
            sessions.popitem(last=False)

    return tick


@healthy(
    "ok_flush_at_18_mb",
    "lines of telemetry gather to 18 MB, are joined, compressed and dropped: 30 to 85 minutes;"
    " no load",
)
def flush(service: Service) -> Tick:
    random = service.random
    lines: list[str] = []
    pace = Pace(service, 30, 170)
    factor = switching(random, 0.4, 1.4, 15)
    flushed = 0

    def tick() -> None:
        nonlocal flushed
        for _ in range(pace.due(factor(service.minute))):
            lines.append(f"{service.minute:.3f} sensor={random.random()} " + "v" * 80)
        if len(lines) * 170 > 18 * MB:
            flushed += len(zlib.compress("\n".join(lines).encode(), 1))
            lines.clear()

    return tick


@healthy(
    "ok_nightly_batch",
    "one night of 7 hours: at minute 215 a batch reads 230 MB of rows within 25 minutes, sorts"
    " them, holds them for 20 and drops them; little load",
)
def nightly_batch(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, constant(12), noise=0.25)
    rows: list[tuple[float, object, bytes]] = []
    held = 0
    done = False

    def tick() -> None:
        nonlocal held, done
        traffic.tick()
        if service.minute > 260:
            rows.clear()
            return
        while held < 230 * MB * min(1.0, (service.minute - 215) / 25):
            piece, size = object_request(random)
            rows.append((random.random(), piece, bytes(size)))
            held += 2 * size
        if held >= 230 * MB and not done:
            rows.sort(key=lambda row: row[0])
            done = True

    return tick


@healthy(
    "ok_socket_pool",
    "sockets with buffers of 192 KB are opened when all are taken and closed after 25 idle"
    " minutes; unreported clients that come and go",
)
def socket_pool(service: Service) -> Tick:
    random = service.random
    demand = switching(random, 15, 110, 40)
    traffic = Traffic(service, lambda minute: demand(minute) / 4, noise=0.15)
    # The first ones are taken first, so that the last ones are those that idle.
    pool: list[tuple[socket.socket, socket.socket, bytearray]] = []
    used: list[float] = []

    def tick() -> None:
        traffic.tick()
        wanted = max(1, int(demand(service.minute) * random.gauss(1, 0.2)))
        while len(pool) < wanted:
            pool.append((*socket.socketpair(), bytearray(192 * 1024)))
            used.append(service.minute)
        used[:wanted] = [service.minute] * wanted
        while used[-1] < service.minute - 25:
            for end in pool.pop()[:2]:
                end.close()
            used.pop()

    return tick


@healthy(
    "ok_dom_cycles",
    "minidom documents are cyclic garbage until a collector with high thresholds comes by;"
    " no load besides",
)
def dom_cycles(service: Service) -> Tick:
    random = service.random
    gc.set_threshold(350_000, 15, 6)

    def tick() -> None:
        for _ in range(random.randrange(1, 5)):
            items = "".join(
                f"<item id='{number}'><name>article {random.random()}</name></item>"
                for number in range(random.randrange(5, 60))
            )
            minidom.parseString(f"<order>{items}</order>")

    return tick


@healthy(
    "ok_ramp_50_reported",
    "reported calls double twice within 50 minutes from minute 120 on, and stay: 30 to 120 MB",
)
def ramp_reported(service: Service) -> Tick:
    noise, trend = sluggish(service.random, 1.0, 0.15, 3), ramp(120, 170, 0, 2)

    def shape(minute: float) -> float:
        return 30.0 * 2.0 ** trend(minute) * noise(minute)

    return Traffic(service, shape, noise=0.05, reported=True).tick


@healthy(
    "ok_ramp_60_unreported",
    "unreported calls of unequal size ramp within 60 minutes from 25 to 75 MB, and stay",
)
def ramp_unreported(service: Service) -> Tick:
    noise, trend = calls(service.random, 1.0, 60, 3), ramp(75, 135, 25, 75)
    return Traffic(service, lambda minute: trend(minute) * noise(minute), noise=0).tick


@healthy(
    "ok_three_jumps",
    "tenants move in and out: 70 MB more at minute 65, 40 less at 170, 55 more at 310;"
    " unreported load with noise of 26 %",
)
def three_jumps(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, sluggish(random, 25, 0.26, 1.5), noise=0.05)
    data: list[object] = []
    held = 0.0

    def tick() -> None:
        nonlocal held
        traffic.tick()
        wanted = 70 * (service.minute > 65) - 40 * (service.minute > 170)
        wanted += 55 * (service.minute > 310)
        while held < wanted * MB:
            piece, size = object_request(random)
            data.append((piece, bytes(size)))
            held += 2 * size
        if held > wanted * MB + MB:
            del data[int(len(data) * wanted * MB / held) :]
            held = wanted * MB

    return tick


@healthy(
    "ok_growth_5",
    "5.3 MB/h: an index of the audit log, a dict by event; unreported load of unequal calls",
    mb_per_hour=5.3,
)
def growth(service: Service) -> Tick:
    traffic = Traffic(service, calls(service.random, 29, 40, 2), noise=0)
    offsets: dict[str, tuple[int, float]] = {}
    pace = Pace(service, 5, 209)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            offsets[f"event-{len(offsets):012d}"] = (1000 + len(offsets) * 300, service.minute)

    return tick


@healthy(
    "ok_mixed_sizes",
    "50 MB of documents of very unequal sizes, a few percent replaced at each tick: holes bring"
    " the heap to a plateau; every 12 to 50 minutes a peak of 60 to 200 MB for a minute or two",
)
def mixed_sizes(service: Service) -> Tick:
    random = service.random
    documents: list[bytearray] = []
    peak: list[bytearray] = []
    held = 0
    following, until = 20.0, 0.0

    def tick() -> None:
        nonlocal held, following, until
        random.shuffle(documents)
        for _ in range(len(documents) // 30):
            held -= len(documents.pop())
        while held < 50 * MB:
            documents.append(bytearray(int(2_000 * min(100.0, random.paretovariate(0.7)))))
            held += len(documents[-1])
        if service.minute >= following:
            until = service.minute + random.uniform(1, 2.5)
            following = until + random.uniform(12, 50)
            peak.extend(bytearray(MB // 2) for _ in range(random.randrange(120, 400)))
        elif service.minute > until:
            peak.clear()

    return tick
