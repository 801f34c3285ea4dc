"""A control server on a loop that a test turns itself."""

from __future__ import annotations

import selectors
import threading

from memguard_native import segment
from memguard_native.errors import SupervisorError
from memguard_native.recycling.control import ControlServer, ask


def echo(request):
    return {"schema": 1, "request": request}


class Loop:
    """Turns a server like the supervisor does."""

    def __init__(self, answer=echo, namespace="shop", **options):
        self.selector = selectors.DefaultSelector()
        self.server = ControlServer(segment.directory(), namespace, answer, **options)
        self.server.register(self.selector)

    def turn(self, timeout=0.0):
        """Whether there was something to do."""
        found = self.selector.select(timeout)
        for key, mask in found:
            key.data(mask)
        return bool(found)

    def settle(self):
        while self.turn():
            pass

    def clients(self):
        return len(self.selector.get_map()) - 1

    def close(self):
        self.server.close()
        self.selector.close()


def asked(loop, request, **options):
    """`ask()` in a thread, while this one turns the loop."""
    found = []

    def run():
        try:
            found.append(ask(loop.server.path, request, **options))
        except SupervisorError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        loop.turn(0.01)
    return found[0]
