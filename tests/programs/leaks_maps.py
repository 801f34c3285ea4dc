"""Leaks outside malloc and outside Python's allocator: maps and shared memory."""

import mmap
import os
from multiprocessing.shared_memory import SharedMemory

from tests.programs.registry import Service, Tick, leaking
from tests.programs.shapes import MB, Pace, Traffic, constant, wave


def touch(view: mmap.mmap | memoryview, size: int) -> None:
    """Writes to each page of the first `size` bytes."""
    for offset in range(0, size, 4096):
        view[offset] = 1


@leaking(
    "leak_private_maps_110",
    "mmap",
    110,
    "private maps of 2 MB, of which 640 KB are used, are never"
    " closed; unreported load wave of 60 minutes",
    onset=180,
)
def private_maps(service: Service) -> Tick:
    traffic = Traffic(service, wave(60, 30, 90))
    maps: list[mmap.mmap] = []
    pace = Pace(service, 110, 640 * 1024, onset=180)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            area = mmap.mmap(-1, 2 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            touch(area, 640 * 1024)
            maps.append(area)

    return tick


@leaking(
    "leak_memfd_20",
    "shared-memory",
    20,
    "memory files for a video pipeline stay mapped; noisy reported load",
    onset=60,
    also="mmap",
)
def memfd(service: Service) -> Tick:
    traffic = Traffic(service, constant(60), noise=0.3, reported=True)
    areas: list[mmap.mmap] = []
    pace = Pace(service, 20, 128 * 1024, onset=60)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            descriptor = os.memfd_create("frame")
            os.ftruncate(descriptor, 128 * 1024)
            area = mmap.mmap(descriptor, 128 * 1024)
            os.close(descriptor)
            touch(area, 128 * 1024)
            areas.append(area)

    return tick


@leaking(
    "leak_shared_segments_150",
    "shared-memory",
    150,
    "shared segments for workers are unlinked but never closed; unreported load wave of 90 minutes",
    onset=30,
    also="mmap",
)
def shared_segments(service: Service) -> Tick:
    traffic = Traffic(service, wave(90, 20, 80))
    segments: list[SharedMemory] = []
    pace = Pace(service, 150, MB // 2, onset=30)

    def tick() -> None:
        traffic.tick()
        for _ in range(pace.due()):
            segment = SharedMemory(create=True, size=MB // 2)
            segment.unlink()
            memory = segment.buf
            assert memory is not None
            touch(memory, MB // 2)
            segments.append(segment)

    return tick
