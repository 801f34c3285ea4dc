"""One zygote for all tests of this directory and each uvicorn; two workers for each test."""

from __future__ import annotations

import pytest
from tests.integration.recycling.service import OLDEST, Service, Zygote

KINDS = [
    *[(None, loop, http) for loop in ("asyncio", "uvloop") for http in ("httptools", "h11")],
    (OLDEST, "asyncio", "httptools"),
    (OLDEST, "uvloop", "h11"),
]


def name_of(kind):
    directory, loop, http = kind
    return "-".join([directory.name if directory else "uvicorn", loop, http])


@pytest.fixture(scope="session")
def zygotes():
    zygotes = {}
    yield zygotes
    for zygote in zygotes.values():
        zygote.close()


@pytest.fixture(params=KINDS, ids=name_of)
def service(zygotes, request):
    directory, loop, http = request.param
    if directory not in zygotes:
        zygotes[directory] = Zygote(directory)
    service = Service(zygotes[directory], loop=loop, http=http)
    yield service
    service.close()


@pytest.fixture
def old(service):
    return service.start()
