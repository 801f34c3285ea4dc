"""An application that does something at its import: `APP_HANG_IF` names a file, and if that is
there the import does not end; a directory is made, and ends are written to `APP_LOG`, as is the
process that is started where `APP_PROCESS` is set. `APP_IGNORE_CHILDREN`: it ignores SIGCHLD."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import tempfile
import threading
import time

import application

directory = tempfile.TemporaryDirectory(dir=os.environ.get("APP_DIRECTORY"))


@atexit.register
def _end():
    application._log("end")


def _be_a_process():
    application._log("process")
    time.sleep(1000)


if os.environ.get("APP_PROCESS"):
    multiprocessing.get_context("fork").Process(target=_be_a_process, daemon=True).start()

if os.environ.get("APP_IGNORE_CHILDREN"):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

while os.path.exists(os.environ.get("APP_HANG_IF", "")):
    time.sleep(0.1)


async def has_directory(query, body):
    return {"is_there": os.path.isdir(directory.name)}


async def start_thread(query, body):
    """One that nobody ends."""
    threading.Thread(target=time.sleep, args=(1000,)).start()


application.ACTIONS.update({"/has-directory": has_directory, "/start-thread": start_thread})
app = application.app
