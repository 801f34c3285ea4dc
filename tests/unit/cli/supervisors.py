"""A supervisor as commands see it: a control socket that answers in a thread."""

from __future__ import annotations

import os
import selectors
import threading
from contextlib import contextmanager

from memguard_native import segment
from memguard_native.recycling.control import ControlServer

SERVICE = {
    "schema": 1,
    "supervisor": {
        "pid": 4710,
        "app": "shop.web:app",
        "url": "http://127.0.0.1:8000",
        "start": "zygote",
        "uptime": 7834.0,
        "wanted": 2,
    },
    "workers": [
        {
            "number": 0,
            "generation": 5,
            "pid": 4731,
            "state": "ready",
            "age": 754.2,
            "reason": None,
            "requests": 8204,
            "in_flight": 1,
            "connections": 12,
            "own_bytes": 61 * 2**20,
            "private_bytes": 71 * 2**20,
            "max_bytes": 512 * 2**20,
            "verdict": "steady",
            "rate_mb_per_hour": 0.0,
            "forecast_seconds": None,
            "heartbeat_age": 0.08,
        },
        {
            "number": 1,
            "generation": 2,
            "pid": 4712,
            "state": "draining",
            "age": 7820.0,
            "reason": "leak",
            "requests": 97310,
            "in_flight": 0,
            "connections": 3,
            "own_bytes": 304 * 2**20,
            "private_bytes": 314 * 2**20,
            "max_bytes": 512 * 2**20,
            "verdict": "alert",
            "rate_mb_per_hour": 103.4,
            "forecast_seconds": 7241.0,
            "heartbeat_age": 0.02,
        },
        {
            "number": 1,
            "generation": 6,
            "pid": None,
            "state": "starting",
            "age": 0.04,
            "reason": None,
            "requests": 0,
            "in_flight": 0,
            "connections": 0,
            "own_bytes": None,
            "private_bytes": None,
            "max_bytes": 512 * 2**20,
            "verdict": None,
            "rate_mb_per_hour": None,
            "forecast_seconds": None,
            "heartbeat_age": None,
        },
    ],
    "recycles": [
        {
            "at": 0.0,
            "number": 0,
            "reason": "memory",
            "boot_s": 0.09,
            "drain_s": 0.05,
            "handed_over": 11,
            "aborted": 0,
            "freed_bytes": 451 * 2**20,
        },
    ],
    "totals": {
        "recycles": {"memory": 1, "requests": 3},
        "freed_bytes": {"memory": 451 * 2**20},
        "handed_over": 41,
        "aborted": 0,
        "capacity_gap_seconds": 0.0,
    },
}


@contextmanager
def supervisor(answer, namespace="default"):
    """One of this process's number; yields the requests that it was asked."""
    asked: list[dict] = []

    def keep(request):
        asked.append(request)
        return answer(request)

    selector = selectors.DefaultSelector()
    server = ControlServer(segment.directory(), namespace, keep)
    server.register(selector)
    reading, writing = os.pipe()
    selector.register(reading, selectors.EVENT_READ)

    def serve():
        while True:
            for key, mask in selector.select():
                if key.data is None:
                    return
                key.data(mask)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        os.write(writing, b"x")
        thread.join(10)
        server.close()
        selector.close()
        os.close(reading)
        os.close(writing)
