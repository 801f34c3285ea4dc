"""Load shapes (MB in flight at a minute), the traffic that follows them, and the pace of a leak."""

import math
from collections import deque
from collections.abc import Callable
from random import Random

from tests.programs.registry import Service

MB = 2**20
Shape = Callable[[float], float]


def constant(mb: float) -> Shape:
    return lambda minute: mb


def wave(period: float, low: float, high: float, phase: float = 0.0) -> Shape:
    """A sine between low and high; phase 0 starts in the middle and rises, 0.75 at the bottom."""
    return lambda minute: (
        (low + high) / 2 + (high - low) / 2 * math.sin(2 * math.pi * (minute / period + phase))
    )


def sawtooth(period: float, low: float, high: float) -> Shape:
    return lambda minute: low + (high - low) * (minute % period) / period


def ramp(start: float, end: float, low: float, high: float) -> Shape:
    return lambda minute: low + (high - low) * min(1.0, max(0.0, (minute - start) / (end - start)))


def daily(day: float, low: float, high: float, dawn: float = 0.3) -> Shape:
    """Quiet nights, a steep morning, a long plateau with a dip at noon, a slow evening."""

    def shape(minute: float) -> float:
        hour = (minute / day + 0.1) % 1.0
        rise = 1 / (1 + math.exp(-(hour - dawn) / 0.03))
        fall = 1 / (1 + math.exp((hour - 0.8) / 0.05))
        noon = 1 - 0.25 * math.exp(-(((hour - 0.55) / 0.05) ** 2))
        return low + (high - low) * rise * fall * noon

    return shape


def walk(random: Random, low: float, high: float, step: float, pull: float = 0.01) -> Shape:
    """A random walk, pulled to the middle by so much of its distance a minute."""
    middle = (low + high) / 2
    values = [random.uniform(low, high)]
    for _ in range(2000):
        moved = values[-1] + random.gauss(0, step) + pull * (middle - values[-1])
        values.append(min(high, max(low, moved)))
    return lambda minute: values[int(minute)]


def buffer_request(random: Random) -> tuple[object, int]:
    """A request that holds a read buffer, and its bytes."""
    size = random.randrange(16, 112) * 1024
    return bytearray(size), size


def object_request(random: Random) -> tuple[object, int]:
    """A request that holds parsed rows: small objects of Python's own allocator."""
    count = random.randrange(50, 400)
    # Measured: a row of 2 floats in a dict costs 232 bytes, its place in the list 8.
    return [{"x": random.random(), "y": random.random()} for _ in range(count)], count * 240


class Traffic:
    """Requests in flight that follow a shape, the oldest leave first.

    `noise` is the standard deviation of the load from tick to tick, in parts of it; `churn` the
    part of the requests that is replaced at each tick.
    """

    def __init__(
        self,
        service: Service,
        shape: Shape,
        *,
        noise: float = 0.05,
        reported: bool = False,
        request: Callable[[Random], tuple[object, int]] = buffer_request,
        churn: float = 0.03,
    ) -> None:
        self._service, self._shape, self._noise, self._reported = service, shape, noise, reported
        self._request, self._churn = request, churn
        self._in_flight: deque[tuple[object, int]] = deque()
        self._bytes = 0

    @property
    def requests(self) -> int:
        return len(self._in_flight)

    def tick(self) -> None:
        """Finishes and starts requests until as many bytes are in flight as the shape says."""
        random = self._service.random
        level = self._shape(self._service.minute) * random.gauss(1.0, self._noise)
        target = max(0.0, level) * MB
        for _ in range(int(len(self._in_flight) * self._churn)):
            self._finish()
        while self._bytes > target and self._in_flight:
            self._finish()
        while self._bytes < target:
            request = self._request(random)
            self._in_flight.append(request)
            self._bytes += request[1]
        if self._reported:
            self._service.load = len(self._in_flight)

    def _finish(self) -> None:
        self._bytes -= self._in_flight.popleft()[1]


class Pace:
    """How many pieces of a leak (or of a cache that fills) are due at this tick."""

    def __init__(
        self, service: Service, mb_per_hour: float, piece_bytes: float, onset: float = 0.0
    ) -> None:
        self._service, self._onset = service, onset
        self._pieces_per_minute = mb_per_hour / 60 * MB / piece_bytes
        self._credit = 0.0
        self._last = 0.0

    def due(self, factor: float = 1.0) -> int:
        """The pieces since the last call at `factor` times the pace; fractions are kept."""
        minute = self._service.minute
        since = max(0.0, minute - max(self._last, self._onset))
        self._last = minute
        self._credit += since * self._pieces_per_minute * factor
        whole = int(self._credit)
        self._credit -= whole
        return whole
