"""Leaks of malloc: C libraries, big buffers, and holes that nothing fits into."""

import ctypes
import importlib
import io
import sqlite3
import ssl
import sys
import zlib
from array import array
from pathlib import Path
from types import ModuleType

from tests.programs.registry import Service, Tick, healthy, leaking
from tests.programs.shapes import (
    MB,
    Pace,
    Traffic,
    constant,
    daily,
    object_request,
    ramp,
    walk,
    wave,
)

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.realloc.restype = ctypes.c_void_p
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def filled(size: int) -> int:
    """A block of C memory whose pages are all touched."""
    address = libc.malloc(size)
    ctypes.memset(address, 1, size)
    return int(address)


@leaking(
    "leak_c_blocks_48_late",
    "native-heap",
    48,
    "C blocks of 1 to 24 KB that are never freed, from"
    " minute 250 on; unreported load wave of 60 minutes",
    onset=250,
)
def c_blocks(service: Service) -> Tick:
    traffic = Traffic(service, wave(60, 20, 60))
    pace = Pace(service, 48, 12.5 * 1024, onset=250)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            filled(service.random.randrange(1024, 24 * 1024))

    return tick


@leaking(
    "leak_numpy_views_75",
    "native-heap",
    75,
    "a small view of each frame is kept and keeps the"
    " whole frame; unreported load wave of 180 minutes",
)
def numpy_views(service: Service) -> Tick:
    import numpy

    traffic = Traffic(service, wave(180, 20, 100))
    thumbnails: list[object] = []
    pace = Pace(service, 75, 96 * 1024)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            frame = numpy.full(96 * 1024, 7, dtype=numpy.uint8)
            thumbnails.append(frame[:64])

    return tick


@leaking(
    "leak_zlib_streams_130",
    "native-heap",
    130,
    "a compressor per connection is kept after its end; unreported load wave of 240 minutes",
    onset=30,
)
def zlib_streams(service: Service) -> Tick:
    traffic = Traffic(service, wave(240, 20, 120))
    streams: list[object] = []
    pace = Pace(service, 130, 268_450, onset=30)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            stream = zlib.compressobj(6)
            stream.compress(service.random.randbytes(40_000))
            streams.append(stream)

    return tick


@leaking(
    "leak_series_700",
    "native-heap",
    700,
    "one array per sensor gets every measurement appended"
    " and is never cut: few blocks that malloc moves by mremap",
    onset=30,
    also="mmap",
    minutes=150,
)
def series(service: Service) -> Tick:
    sensors = [array("d") for _ in range(6)]
    pace = Pace(service, 700, 8 * 4_000, onset=30)
    number = 0

    def tick() -> None:
        nonlocal number
        for _ in range(pace.due()):
            number += 1
            sensors[number % 6].frombytes(service.random.randbytes(8) * 4_000)

    return tick


@leaking(
    "leak_tls_handshakes_60",
    "native-heap",
    60,
    "TLS handshakes that never end are kept with their buffers; random unreported load",
    onset=60,
    also="python-objects",
)
def tls_handshakes(service: Service) -> Tick:
    traffic = Traffic(service, walk(service.random, 15, 70, 2.0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    open_handshakes: list[tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]] = []
    pace = Pace(service, 60, 42_250, onset=60)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            connection = context.wrap_bio(incoming, outgoing, server_hostname="service.invalid")
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                open_handshakes.append((connection, incoming, outgoing))

    return tick


@leaking(
    "leak_sqlite_connections_33",
    "native-heap",
    33,
    "a database connection per job stays open with"
    " its page cache; a day of 480 minutes as reported load",
    onset=120,
)
def sqlite_connections(service: Service) -> Tick:
    traffic = Traffic(service, daily(480, 20, 80), reported=True)
    connections: list[sqlite3.Connection] = []
    pace = Pace(service, 33, 290_000, onset=120)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            connection = sqlite3.connect(":memory:")
            connection.execute("create table job (number integer, text text)")
            values = ((number, "x" * 500) for number in range(400))
            connection.executemany("insert into job values (?, ?)", values)
            connections.append(connection)

    return tick


@leaking(
    "leak_bodies_65",
    "native-heap",
    65,
    "request bodies of 20 to 400 KB stay in a history; an unreported load wave of 300 minutes",
    onset=180,
)
def bodies(service: Service) -> Tick:
    traffic = Traffic(service, wave(300, 20, 90, phase=0.25))
    history: list[io.BytesIO] = []
    pace = Pace(service, 65, 210 * 1024, onset=180)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            history.append(io.BytesIO(bytearray(service.random.randrange(20, 400) * 1024)))
            history[-1].write(b"touched")

    return tick


@leaking(
    "leak_frames_1200",
    "native-heap",
    1200,
    "decoded frames of 1 MB are kept; load noise of 40 %",
    onset=30,
    also="mmap",
    minutes=150,
)
def frames(service: Service) -> Tick:
    traffic = Traffic(service, constant(60), noise=0.4)
    decoded: list[bytearray] = []
    pace = Pace(service, 1200, MB, onset=30)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            decoded.append(bytearray(MB - 100))

    return tick


@leaking(
    "leak_trimmed_reads_45",
    "fragmentation",
    45,
    "read buffers are trimmed in place and kept, and"
    " the read size creeps up: the holes behind them are too small for the next",
    onset=60,
    also="native-heap",
)
def trimmed_reads(service: Service) -> Tick:
    traffic = Traffic(service, constant(20), noise=0.02, request=object_request)
    bytes_due = Pace(service, 45, 1, onset=60)
    due = 0
    size = 16 * 1024
    messages: list[bytearray] = []

    def tick() -> None:
        nonlocal due, size
        traffic.tick()
        due += bytes_due.due()
        while due >= size:
            due -= size
            messages.append(bytearray(size))
            size += 16
            # The one before, so that its hole does not touch the top of the heap.
            del messages[-min(2, len(messages))][600:]

    return tick


def ujson(version: str) -> ModuleType:
    """ujson in that version: both live beside the virtual environment's own packages."""
    sys.path.insert(0, str(Path(sys.prefix) / f"ujson-{version}"))
    try:
        module = importlib.import_module("ujson")
    finally:
        sys.path.pop(0)
    if module.__version__ != version:
        raise RuntimeError(f"ujson {version} is wanted, {module.__version__} is there")
    return module


def parse_big_integers(service: Service, module: ModuleType, mb_per_hour: float) -> Tick:
    """Parses documents with integers of 2000 digits.

    ujson 5.4.0 to 5.11.0 keeps a copy of each one's text: CVE-2026-32874, fixed in 5.12.0.
    """
    traffic = Traffic(service, ramp(60, 300, 20, 60), noise=0.15, reported=True)
    pace = Pace(service, mb_per_hour, 10 * 2_016)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            digits = str(service.random.randrange(1, 9)) * 2_000
            module.loads('{"keys": [' + ", ".join([digits] * 10) + "]}")

    return tick


@leaking(
    "leak_ujson_26",
    "native-heap",
    26,
    "ujson 5.11.0 parses integers of 2000 digits and keeps their"
    " text (CVE-2026-32874); slow reported ramp of the load",
    # ujson takes the memory from Python's allocator: a block for each 2 KB.
    also="python-objects",
)
def ujson_leaky(service: Service) -> Tick:
    return parse_big_integers(service, ujson("5.11.0"), 26)


@healthy("ok_ujson_mended", "the same documents with ujson 5.12.0, where the leak is fixed")
def ujson_mended(service: Service) -> Tick:
    return parse_big_integers(service, ujson("5.12.0"), 26)
