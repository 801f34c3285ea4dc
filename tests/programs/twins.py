"""Pairs for the live tests: a program that leaks fast, and its twin in which the defect is mended.

Both make the same pieces at the same pace. The leaking one keeps them all; the mended one keeps the
newest of 15 minutes, or does not make the mistake at all. Fast, so that a window of the detector
passes in seconds. No load: what the recorded programs add to a leak is left out here.
"""

import contextlib
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tests.programs.leaks_maps import touch
from tests.programs.leaks_native import filled, libc, ujson
from tests.programs.leaks_runtime import wait_deep_in_the_stack
from tests.programs.registry import Service, Tick, healthy, leaking
from tests.programs.shapes import Pace

KEPT_MINUTES = 15


Piece = TypeVar("Piece")


def twins(
    name: str,
    cause: str,
    mb_per_hour: float,
    piece_bytes: int,
    make: Callable[[Service], Piece],
    drop: Callable[[Piece], object],
) -> None:
    """Enters `name`_leaks and `name`_mended, which has `drop` end the oldest piece."""
    pieces_kept = int(mb_per_hour / 60 * KEPT_MINUTES * 2**20 / piece_bytes)

    def build(service: Service, most: int | None) -> Tick:
        pace = Pace(service, mb_per_hour, piece_bytes)
        kept: deque[Piece] = deque()

        def tick() -> None:
            for _ in range(pace.due()):
                kept.append(make(service))
                if most is not None and len(kept) > most:
                    drop(kept.popleft())

        return tick

    @leaking(f"{name}_leaks", cause, mb_per_hour, "all pieces are kept")
    def leaks(service: Service) -> Tick:
        return build(service, None)

    @healthy(f"{name}_mended", "the newest pieces are kept")
    def mended(service: Service) -> Tick:
        return build(service, pieces_kept)


def make_buffer(service: Service) -> int:
    return filled(service.random.randrange(8 * 1024, 24 * 1024))


def make_map(service: Service) -> mmap.mmap:
    area = mmap.mmap(-1, 256 * 1024, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(area, 256 * 1024)
    return area


def make_shared(service: Service) -> mmap.mmap:
    descriptor = os.memfd_create("piece")
    os.ftruncate(descriptor, 256 * 1024)
    area = mmap.mmap(descriptor, 256 * 1024)
    os.close(descriptor)
    touch(area, 256 * 1024)
    return area


def make_thread(service: Service) -> threading.Event:
    end = threading.Event()
    threading.Thread(target=wait_deep_in_the_stack, args=(220, end), daemon=True).start()
    return end


# The sizes of pieces were measured with the recorder.
twins("buffers", "native-heap", 300, 16 * 1024, make_buffer, libc.free)
twins("maps", "mmap", 300, 256 * 1024, make_map, lambda area: area.close())
twins("shared", "shared-memory", 300, 256 * 1024, make_shared, lambda area: area.close())
twins("threads", "mmap", 180, 269_500, make_thread, lambda end: end.set())


def dict_of_users(service: Service, most: int | None) -> Tick:
    users: dict[str, list[float]] = {}
    pace = Pace(service, 300, 1_300)
    seen = 0

    def tick() -> None:
        nonlocal seen
        for _ in range(pace.due()):
            seen += 1
            users[f"session-{seen:040d}"] = [service.random.random() for _ in range(26)]
            if most is not None and seen > most:
                del users[f"session-{seen - most:040d}"]

    return tick


@leaking("dict_leaks", "python-objects", 300, "a dict by user that nobody prunes")
def dict_leaks(service: Service) -> Tick:
    return dict_of_users(service, None)


@healthy("dict_mended", "the same dict with an upper bound")
def dict_mended(service: Service) -> Tick:
    return dict_of_users(service, 75 * 2**20 // 1_300)


def parse(service: Service, version: str) -> Tick:
    """Reads integers of 20,000 digits, which are refused: Python's own limit is 4300.

    ujson 5.4.0 to 5.11.0 keeps their text nevertheless: CVE-2026-32874. It takes it from Python's
    allocator, so that shorter ones could not be told from Python objects.
    """
    loads = ujson(version).loads
    pace = Pace(service, 300, 20_024)
    text = "[" + "7" * 20_000 + "]"

    def tick() -> None:
        for _ in range(pace.due()):
            with contextlib.suppress(ValueError):
                loads(text)

    return tick


@leaking("ujson_leaks", "native-heap", 300, "ujson 5.11.0 reads big integers")
def ujson_leaks(service: Service) -> Tick:
    return parse(service, "5.11.0")


@healthy("ujson_mended", "ujson 5.12.0 reads big integers")
def ujson_mended(service: Service) -> Tick:
    return parse(service, "5.12.0")


def read_messages(service: Service, trim_in_place: bool) -> Tick:
    """Reads of a creeping size of which 600 bytes stay.

    Trimmed in place they leave a hole that is too small for the next read; copied they do not.
    """
    bytes_due = Pace(service, 180, 1)
    due = 0
    size = 16 * 1024
    messages: list[bytes | bytearray] = []
    reading = bytearray()

    def tick() -> None:
        nonlocal due, size, reading
        due += bytes_due.due()
        while due >= size:
            due -= size
            following = bytearray(size)
            if trim_in_place:
                # Not the newest: its hole would be one with the top of the heap.
                del reading[600:]
                messages.append(reading)
            else:
                messages.append(bytes(reading[:600]))
            reading = following
            size += 16

    return tick


@leaking("reads_leaks", "fragmentation", 180, "read buffers are trimmed in place and kept")
def reads_leaks(service: Service) -> Tick:
    return read_messages(service, True)


@healthy("reads_mended", "what is to stay of a read is copied", mb_per_hour=2)
def reads_mended(service: Service) -> Tick:
    return read_messages(service, False)
