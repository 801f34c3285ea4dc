"""Leaks for one last, blind judgement: mechanisms and loads that no other program here has.

Written without knowledge of the detector and of its results; their traces are tests/traces/blind.
Rates and onsets were drawn at random before the programs were written (but the fastest's onset);
labels are what was measured then.
"""

import csv
import io
import itertools
import mmap
import signal
import sqlite3
import subprocess
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from multiprocessing.shared_memory import SharedMemory
from random import Random
from types import FrameType

from tests.programs.blind_healthy import calls, sluggish, switching
from tests.programs.registry import Service, Tick, leaking
from tests.programs.shapes import MB, Pace, Traffic, wave


class Histogram:
    """What a metrics library keeps for one combination of labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels, self.count, self.sum = labels, 0, 0.0
        self.buckets = [0.0] * 14

    def observe(self, value: float) -> None:
        self.count += 1
        self.sum += value
        for index in range(14):
            if value <= 0.005 * 2**index:
                self.buckets[index] += 1


@leaking(
    "leak_label_cardinality_15",
    "python-objects",
    15,
    "a histogram per path, and the paths have user numbers in them: grows with the reported calls",
    steady=False,
)
def label_cardinality(service: Service) -> Tick:
    shape = calls(service.random, 64, 60, 3)
    traffic = Traffic(service, shape, noise=0, reported=True)
    histograms: dict[tuple[str, ...], Histogram] = {}
    mean = sum(map(shape, range(420))) / 420
    pace = Pace(service, 15, 828)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due(shape(service.minute) / mean)):
            labels = ("GET", f"/api/v2/users/{len(histograms)}/orders", "200")
            histograms[labels] = Histogram(labels)
            histograms[labels].observe(service.random.expovariate(8))

    return tick


@leaking(
    "leak_handler_chain_28",
    "python-objects",
    28,
    "each reload registers a signal handler that calls the one before:"
    " all settings that ever were are kept; no load",
)
def handler_chain(service: Service) -> Tick:
    random = service.random
    pace = Pace(service, 28, 27_200)

    def register(settings: dict[str, list[str]]) -> None:
        previous = signal.getsignal(signal.SIGUSR2)

        def handler(number: int, frame: FrameType | None) -> None:
            settings.clear()
            if callable(previous):
                previous(number, frame)

        signal.signal(signal.SIGUSR2, handler)

    def tick() -> None:
        for _ in range(pace.due()):
            names = (f"service.section.option{number}" for number in range(60))
            register({name: [f"value {random.random()}" for _ in range(3)] for name in names})

    return tick


@leaking(
    "leak_open_cursors_26",
    "python-objects",
    26,
    "queries with their values in the text, of which only the first row is read: cursor and"
    " prepared statement stay; by fits and starts; unreported load with sluggish noise",
    onset=169,
    also="native-heap",
    steady=False,
)
def open_cursors(service: Service) -> Tick:
    traffic = Traffic(service, sluggish(service.random, 61, 0.31, 8), noise=0.05)
    paces = switching(service.random, 0.4, 1.6, 12)
    mean = sum(paces(minute / 5) for minute in range(169 * 5, 420 * 5)) / (251 * 5)
    connection = sqlite3.connect(":memory:")
    connection.execute("create table orders (customer integer, total real, text text)")
    rows = ((number % 40, number * 1.5, f"order {number}") for number in range(400))
    connection.executemany("insert into orders values (?, ?, ?)", rows)
    cursors: list[sqlite3.Cursor] = []
    pace = Pace(service, 26, 3_535, onset=169)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due(paces(service.minute) / mean)):
            number = len(cursors)
            cursors.append(
                connection.execute(
                    f"select text, total * {number} from orders where customer = {number % 40}"
                    f" and total < {number + 1000} and text <> 'order {number}'"
                )
            )
            cursors[-1].fetchone()

    return tick


@leaking(
    "leak_child_outputs_21",
    "native-heap",
    21,
    "child processes are run through pipes, and what they wrote is kept with their exit status;"
    " no load",
    onset=129,
)
def child_outputs(service: Service) -> Tick:
    finished: list[subprocess.CompletedProcess[bytes]] = []
    bytes_due = Pace(service, 21, 1, onset=129)
    due = 0
    size = 50_000

    def tick() -> None:
        nonlocal due, size
        due += bytes_due.due()
        while due >= size:
            due -= size
            command = ["head", "-c", str(size), "/dev/zero"]
            finished.append(subprocess.run(command, stdout=subprocess.PIPE, check=True))
            size = service.random.randrange(20_000, 120_000)

    return tick


@leaking(
    "leak_tee_branch_16",
    "python-objects",
    16,
    "itertools.tee gives a stream to a writer and to an auditor that never reads; unreported"
    " load of few unequal calls",
)
def tee_branch(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, calls(random, 27, 35, 2), noise=0)

    def source() -> Iterator[dict[str, object]]:
        for number in itertools.count(1000):
            yield {"number": number, "amount": random.random(), "account": f"account {number}"}

    written, audited = itertools.tee(source())
    pace = Pace(service, 16, 331)

    def tick() -> float:
        traffic.tick()
        return sum(len(next(written)) for _ in range(pace.due())) + (audited is None)

    return tick


COLUMNS = tuple(f"attribute_{column}" for column in range(20))


class Entity:
    """A mapped row: its attributes, a copy of what the database has, and its parent."""

    def __init__(self, random: Random, number: int, parent: "Entity | None") -> None:
        self.number, self.parent = number, parent
        self.price = Decimal(random.randrange(10**6)) / 100
        self.changed = datetime(2024, 1, 1) + timedelta(seconds=number)
        self.title = f"article {number:09d}"
        for column in COLUMNS:
            setattr(self, column, f"{column} of {number}")
        self.committed = dict(self.__dict__)
        self.children: list[Entity] = []
        if parent is not None:
            parent.children.append(self)


@leaking(
    "leak_identity_map_83",
    "python-objects",
    83,
    "one database session for the whole process: its identity map keeps every row that was"
    " ever read; reported load wave of 200 minutes",
    onset=37,
)
def identity_map(service: Service) -> Tick:
    traffic = Traffic(service, wave(200, 20, 65), noise=0.23, reported=True)
    identities: dict[tuple[type, int], Entity] = {}
    pace = Pace(service, 83, 10 * 3_291, onset=37)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            parent = None
            for number in range(len(identities), len(identities) + 10):
                entity = identities[Entity, number] = Entity(service.random, number, parent)
                parent = parent or entity

    return tick


@leaking(
    "leak_pinned_slices_85",
    "native-heap",
    85,
    "a memoryview of each message's header is kept and pins the receive buffer; unreported"
    " load wave of 110 minutes",
)
def pinned_slices(service: Service) -> Tick:
    traffic = Traffic(service, wave(110, 25, 70, phase=0.3), noise=0.1)
    headers: dict[int, memoryview] = {}
    bytes_due = Pace(service, 84, 1)
    due = 0

    def tick() -> None:
        nonlocal due
        traffic.tick()
        due += bytes_due.due()
        while due > 0:
            received = bytearray(service.random.randrange(8, 64) * 1024)
            due -= len(received)
            headers[len(headers)] = memoryview(received)[:80]

    return tick


@leaking(
    "leak_shared_log_64",
    "shared-memory",
    64,
    "a posix shared segment of 1 GB takes metrics at a cursor that never goes back; no load",
    onset=57,
    also="mmap",
)
def shared_log(service: Service) -> Tick:
    segment = SharedMemory(create=True, size=1024 * MB)
    segment.unlink()
    pace = Pace(service, 64, 960, onset=57)
    cursor = 0

    def tick() -> None:
        nonlocal cursor
        view = segment.buf
        assert view is not None
        for _ in range(pace.due()):
            view[cursor : cursor + 960] = service.random.randbytes(960)
            cursor += 960

    return tick


@leaking(
    "leak_report_text_64",
    "native-heap",
    64,
    "a csv.writer over one StringIO that is never emptied: a single block that is moved by"
    " mremap; reported load with noise of 33 %",
    also="mmap",
)
def report_text(service: Service) -> Tick:
    traffic = Traffic(service, sluggish(service.random, 43, 0.33, 2), noise=0.05, reported=True)
    text = io.StringIO()
    writer = csv.writer(text)
    # A line has 83 characters.
    pace = Pace(service, 64, 83)
    line = 0

    def tick() -> None:
        nonlocal line
        traffic.tick()
        for _ in range(pace.due()):
            line += 1
            writer.writerow((f"{line:012d}", "GET", "/api/v2/orders", 200, "x" * 45))

    return tick


@leaking(
    "leak_scratch_153",
    "mmap",
    153,
    "six scratch areas of anonymous memory are resized upwards by whoever needs more, never"
    " downwards; unreported load of a client that comes and goes",
    onset=79,
)
def scratch(service: Service) -> Tick:
    traffic = Traffic(service, switching(service.random, 45, 75, 25), noise=0.1)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    areas = [mmap.mmap(-1, MB, flags=flags) for _ in range(6)]
    for area in areas:
        area.write(b"\x01" * MB)
    pace = Pace(service, 153, 128 * 1024, onset=79)
    grown = 0

    def tick() -> None:
        nonlocal grown
        traffic.tick()
        for _ in range(pace.due()):
            grown += 1
            area = areas[grown % 6]
            area.resize(len(area) + 128 * 1024)
            area.write(b"\x01" * (128 * 1024))

    return tick


@leaking(
    "leak_futures_101",
    "python-objects",
    101,
    "a deque keeps the futures of all jobs with their results; reported load of unequal calls",
)
def futures(service: Service) -> Tick:
    random = service.random
    traffic = Traffic(service, calls(random, 49, 25, 4), noise=0, reported=True)
    executor = ThreadPoolExecutor(2)
    submitted: deque[Future[dict[str, float]]] = deque()
    pace = Pace(service, 101, 10_073)

    def answer(number: int) -> dict[str, float]:
        return {f"field{number + i}": 0.5 * i for i in range(70)}

    def tick() -> None:
        traffic.tick()
        due = [executor.submit(answer, len(submitted)) for _ in range(pace.due())]
        for future in due:
            future.result()
        submitted.extend(due)

    return tick


def model(seed: int) -> dict[str, object]:
    """A fitted model of one tenant: scaler, coefficients, and the residuals of the training."""
    import numpy

    random = numpy.random.default_rng(seed)
    features = int(random.integers(40, 200))
    return {
        "mean": random.standard_normal(features),
        "coefficients": random.standard_normal((features, 60)),
        "covariance": random.standard_normal((features, features)),
        "residuals": random.standard_normal(int(random.integers(2_000, 40_000))),
    }


@leaking(
    "leak_tenant_models_776",
    "native-heap",
    776,
    "a model is fitted per tenant and kept for ever, 50 to 700 KB each; no load",
    onset=60,
    also="mmap",
    minutes=150,
)
def tenant_models(service: Service) -> Tick:
    models: list[dict[str, object]] = []
    pace = Pace(service, 776, 368_200, onset=60)

    def tick() -> None:
        models.extend(model(len(models) + number) for number in range(pace.due()))

    return tick
