"""Leaks of Python objects: something holds on to what a request made."""

import functools
import logging
import queue
import weakref
from types import TracebackType

from tests.programs.registry import Service, Tick, leaking
from tests.programs.shapes import (
    Pace,
    Traffic,
    constant,
    daily,
    object_request,
    sawtooth,
    walk,
    wave,
)


@leaking(
    "leak_closures_14",
    "python-objects",
    14,
    "a closure over the parsed document is registered per"
    " request and never removed; no load to speak of",
)
def closures(service: Service) -> Tick:
    random, callbacks = service.random, []
    # Measured with the recorder: a document with its closure costs this much.
    pace = Pace(service, 14, 1_830)

    def tick() -> None:
        for _ in range(pace.due()):
            document = {f"field{i}": random.random() for i in range(12)}
            callbacks.append(lambda scale, document=document: scale * sum(document.values()))

    return tick


@leaking(
    "leak_log_handlers_22",
    "python-objects",
    22,
    "a logger with a handler and a formatter per job:"
    " the logging module keeps loggers for ever; unreported load wave of 90 minutes",
    onset=30,
)
def log_handlers(service: Service) -> Tick:
    traffic = Traffic(service, wave(90, 20, 70))
    pace = Pace(service, 22, 1_290, onset=30)
    jobs = 0

    def tick() -> None:
        nonlocal jobs
        traffic.tick()
        for _ in range(pace.due()):
            jobs += 1
            logger = logging.getLogger(f"jobs.{jobs}")
            handler = logging.NullHandler()
            handler.setFormatter(logging.Formatter(f"%(asctime)s job {jobs} %(message)s"))
            logger.addHandler(handler)
            logger.info("started")

    return tick


@leaking(
    "leak_unread_queue_28",
    "python-objects",
    28,
    "messages of 1 KB go to a queue whose reader is gone; reported load wave of 240 minutes",
    onset=180,
    also="native-heap",
)
def unread_queue(service: Service) -> Tick:
    traffic = Traffic(service, wave(240, 30, 110), noise=0.1, reported=True)
    messages: queue.Queue[tuple[float, bytes]] = queue.Queue()
    pace = Pace(service, 28, 1_150, onset=180)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            messages.put((service.minute, service.random.randbytes(1024)))

    return tick


@leaking(
    "leak_cache_by_url_38",
    "python-objects",
    38,
    "functools.cache on a function of the whole URL:"
    " grows with the traffic, reported load of a day of 480 minutes",
    steady=False,
)
def cache_by_url(service: Service) -> Tick:
    shape = daily(480, 10, 90)
    traffic = Traffic(service, shape, reported=True, request=object_request)
    pace = Pace(service, 38, 880)
    mean = sum(map(shape, range(420))) / 420
    calls = 0

    @functools.cache
    def render(url: str) -> dict[str, float]:
        return {name: len(url) * 1.5 for name in url[-12:]}

    def tick() -> None:
        nonlocal calls
        traffic.tick()
        for _ in range(pace.due(shape(service.minute) / mean)):
            calls += 1
            render(f"https://service.invalid/search?session={calls:032x}&page=1")

    return tick


class Session:
    """What a connection works with."""

    def __init__(self, rows: list[float]) -> None:
        self.rows = rows

    def close(self) -> None:
        self.rows.clear()


@leaking(
    "leak_finalizers_24",
    "python-objects",
    24,
    "weakref.finalize with a bound method of the object"
    " itself: the registry keeps it alive; 40 minutes sawtooth of load",
    onset=60,
)
def finalizers(service: Service) -> Tick:
    traffic = Traffic(service, sawtooth(40, 15, 60), request=object_request)
    pace = Pace(service, 24, 1_730, onset=60)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            session = Session([service.random.random() for _ in range(30)])
            weakref.finalize(session, session.close)

    return tick


def fail(depth: int, rows: list[float]) -> None:
    """Raises from `depth` frames below, each with a local of its own."""
    local = [depth * value for value in rows]
    if depth == 0:
        raise ValueError(len(local))
    fail(depth - 1, rows)


@leaking(
    "leak_tracebacks_80",
    "python-objects",
    80,
    "the last errors are kept for a report that nobody"
    " fetches: each holds its frames and their locals; random unreported load",
    onset=120,
)
def tracebacks(service: Service) -> Tick:
    traffic = Traffic(service, walk(service.random, 20, 80, 2.0))
    errors: list[tuple[ValueError, TracebackType | None]] = []
    pace = Pace(service, 80, 8_990, onset=120)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            try:
                fail(8, [service.random.random() for _ in range(12)])
            except ValueError as error:
                errors.append((error, error.__traceback__))

    return tick


@leaking(
    "leak_classes_38",
    "python-objects",
    38,
    "a new class per query: bases keep their subclasses,"
    " the cache keeps the classes; constant load",
)
def classes(service: Service) -> Tick:
    traffic = Traffic(service, constant(40), noise=0.2)
    made: list[type] = []
    pace = Pace(service, 38, 2_340)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            name = f"Query{len(made)}"
            made.append(type(name, (Session,), {"limit": 10, "fields": (name,)}))

    return tick


@leaking(
    "leak_in_bursts_30",
    "python-objects",
    30,
    "an import every 5 to 25 minutes leaves its rows"
    " behind: bursts of 2.5 to 12.5 MB; noisy reported load",
    steady=False,
)
def in_bursts(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, constant(50), noise=0.3, reported=True)
    pace = Pace(service, 30, 260)
    rows: list[dict[str, float]] = []
    following = 7.0
    waiting = 0

    def tick() -> None:
        nonlocal following, waiting
        traffic.tick()
        waiting += pace.due()
        if service.minute >= following:
            following += random.uniform(5, 25)
            rows.extend({"x": random.random(), "y": random.random()} for _ in range(waiting))
            waiting = 0

    return tick


@leaking(
    "leak_rows_800",
    "python-objects",
    800,
    "every answer of the database is kept in a dict by its query; no load",
    onset=60,
    minutes=150,
)
def rows(service: Service) -> Tick:
    random = service.random
    answers: dict[int, list[dict[str, float]]] = {}
    pace = Pace(service, 800, 26_780, onset=60)

    def tick() -> None:
        for _ in range(pace.due()):
            answers[len(answers)] = [{"x": random.random(), "y": 1.0 * i} for i in range(100)]

    return tick


@leaking(
    "leak_sessions_12_walk",
    "python-objects",
    12,
    "sessions that never expire, 12 MB/h under a random unreported load of 15 to 55 MB",
)
def sessions(service: Service) -> Tick:
    traffic = Traffic(service, walk(service.random, 15, 55, 1.5))
    table: dict[str, list[float]] = {}
    pace = Pace(service, 12, 1_300)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            table[f"session-{len(table):040d}"] = [service.random.random() for _ in range(26)]

    return tick
