"""Where a process that the supervisor spawns begins: `python -m memguard_native.recycling ROLE`.

Descriptors 3 to 5 are its channel, the listener and the settings.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from memguard_native.recycling.logs import configure_logging
from memguard_native.recycling.messages import Channel
from memguard_native.recycling.settings import ServiceSettings, WorkerPlace
from memguard_native.recycling.zygote import Zygote, end_process_after, end_with, prepare_signals

CHANNEL, LISTENER, SETTINGS = 3, 4, 5


def main(role: str, *place: str) -> int:
    """Be a "zygote", or the "worker" of this number, generation and predecessor's slot."""
    sys.path.insert(0, "")  # as `python -m uvicorn` does: the application lies where it is started
    channel = Channel(socket.socket(fileno=CHANNEL))
    listener = socket.socket(fileno=LISTENER)
    # They have come by inheritance; what the application starts is not to have them.
    for kept in (CHANNEL, LISTENER):
        os.set_inheritable(kept, False)
    settings = ServiceSettings.from_file(SETTINGS)
    configure_logging(settings.uvicorn_options.get("log_level"))
    if role == "zygote":
        return Zygote(channel, listener, settings).run()
    from memguard_native.recycling.worker import Worker

    end_with(settings.supervisor, signal.SIGTERM)
    prepare_signals()
    number, generation, slot = place
    where = WorkerPlace(
        number=int(number),
        generation=int(generation),
        predecessor=None if slot == "-" else int(slot),
    )
    return Worker(channel, listener, settings, where).run()


if __name__ == "__main__":
    end_process_after(lambda: main(*sys.argv[1:]))
