"""Healthy services whose memory follows their load."""

from random import Random

from tests.programs.registry import Service, Tick, healthy
from tests.programs.shapes import (
    MB,
    Shape,
    Traffic,
    buffer_request,
    constant,
    daily,
    object_request,
    ramp,
    sawtooth,
    walk,
    wave,
)


def follow_load(
    name: str,
    note: str,
    shape: Shape,
    *,
    noise: float = 0.05,
    reported: bool = False,
    objects: bool = False,
) -> None:
    """Enters a service that does nothing but hold its requests."""

    def build(service: Service) -> Tick:
        request = object_request if objects else buffer_request
        return Traffic(service, shape, noise=noise, reported=reported, request=request).tick

    healthy(name, note)(build)


follow_load("ok_constant_80", "constant load of 80 MB with 10 % noise", constant(80), noise=0.1)
follow_load("ok_wave_60", "unreported load wave of 60 minutes, 20 to 90 MB", wave(60, 20, 90))
follow_load(
    "ok_wave_90",
    "unreported load wave of 90 minutes, 20 to 120 MB of objects",
    wave(90, 20, 120, phase=0.5),
    objects=True,
)
follow_load(
    "ok_wave_180",
    "unreported load wave of 180 minutes, 20 to 100 MB",
    wave(180, 20, 100, phase=0.6),
)
follow_load(
    "ok_wave_300",
    "unreported load wave of 300 minutes, 15 to 90 MB of objects",
    wave(300, 15, 90, phase=0.4),
    objects=True,
)
follow_load(
    "ok_wave_420",
    "unreported load wave of 420 minutes, 20 to 80 MB, starting at the bottom",
    wave(420, 20, 80, phase=0.75),
)
follow_load(
    "ok_daily_480",
    "a day of 480 minutes, reported, 20 to 150 MB",
    daily(480, 20, 150),
    noise=0.1,
    reported=True,
)
follow_load(
    "ok_ramp_4h_reported",
    "reported traffic ramps from 20 to 140 MB in four hours, then stays",
    ramp(30, 270, 20, 140),
    reported=True,
)
follow_load(
    "ok_ramp_4h_slow",
    "unreported traffic ramps by 24 MB in four hours: 6 MB/h",
    ramp(60, 300, 40, 64),
)
follow_load(
    "ok_ramp_100",
    "unreported traffic ramps by 80 MB in 100 minutes, then stays",
    ramp(90, 190, 30, 110),
)
follow_load(
    "ok_sawtooth_55", "load sawtooth of 55 minutes, unreported, 20 to 120 MB", sawtooth(55, 20, 120)
)


def two_levels(minute: float) -> float:
    return 50.0 if minute < 300 else min(150.0, 50 + 30 * (minute - 300))


follow_load(
    "ok_second_plateau",
    "after 300 minutes the load steps from 50 to 150 MB for good",
    two_levels,
    noise=0.08,
)


@healthy("ok_walk_reported", "random walk of the load, reported, 20 to 180 MB")
def walk_reported(service: Service) -> Tick:
    shape = walk(service.random, 20, 180, 4.0)
    return Traffic(service, shape, noise=0.1, reported=True, request=object_request).tick


@healthy("ok_walk_unreported", "random walk of the load, unreported, 20 to 100 MB")
def walk_unreported(service: Service) -> Tick:
    return Traffic(service, walk(service.random, 20, 100, 2.5)).tick


@healthy("ok_two_waves", "two unreported load waves of 47 and 130 minutes over each other")
def two_waves(service: Service) -> Tick:
    short, long = wave(47, 0, 40), wave(130, 20, 70, phase=0.75)
    return Traffic(service, lambda minute: short(minute) + long(minute)).tick


def large_request(random: Random) -> tuple[object, int]:
    """An upload: 1 to 16 MB, so that malloc maps it."""
    size = random.randrange(1, 17) * MB
    return bytearray(size), size


@healthy("ok_uploads", "uploads of 1 to 16 MB, random unreported load of 0 to 150 MB")
def uploads(service: Service) -> Tick:
    shape = walk(service.random, 0, 150, 12.0, pull=0.05)
    return Traffic(service, shape, request=large_request, churn=0.1).tick


@healthy("ok_heartbeat", "idle but for a heartbeat that builds and drops a small report")
def heartbeat(service: Service) -> Tick:
    def tick() -> None:
        report = [{"uptime": service.minute, "worker": worker} for worker in range(200)]
        service.random.shuffle(report)

    return tick
