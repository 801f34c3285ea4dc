"""What does a breaker that processes share add to `f()`: in shared memory, and in Redis?

The rival is pybreaker with its own storage in a redis-server on loopback, which has a core to
itself; it asks the server at every call. One GET is the least that any such breaker has to pay.
"""

from __future__ import annotations

from bench import redis_server, rivals, segments
from bench.harness import Bench
from bench.servers import HOST
from bench.suites.call import noop

GROUP = "shared"

GET = "redis-py, one GET"
RIVAL = rivals.WITH_REDIS.name


def suite(b: Bench) -> None:
    b.case("bare call", noop)
    b.case("memguard", segments.breaker()(noop), package="memguard-native")
    missing = [name for name in ("redis", "pybreaker") if rivals.version(name) is None]
    missing += [] if redis_server.is_installed() else [redis_server.EXECUTABLE]
    if missing:
        for name, package in ((GET, "redis"), (RIVAL, "pybreaker")):
            b.absent(name, f"not installed: {', '.join(missing)}", package)
    else:
        _against_redis(b)
    b.yardstick = "memguard"
    for denominator in (GET, RIVAL):
        b.budget("memguard", over="bare call", ratio_to=denominator, at_most=1 / 1000, goal="G11")


def _against_redis(b: Bench) -> None:
    import redis

    server = b.resources.enter_context(redis_server.running())
    client = b.resources.enter_context(redis.Redis(HOST, server.port))
    client.set("bench", "closed")
    b.case(GET, client, "x.get('bench')", package="redis")
    guarded = rivals.WITH_REDIS.load().closed(noop, client)
    b.case(RIVAL, guarded, package="pybreaker")
