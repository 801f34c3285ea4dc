"""An application that does something at its import: `APP_HANG_IF` names a file, and if that is
there the import does not end; a directory is made, and ends are written to `APP_LOG`."""

from __future__ import annotations

import atexit
import os
import tempfile
import time

import application

directory = tempfile.TemporaryDirectory(dir=os.environ.get("APP_DIRECTORY"))
atexit.register(lambda: application._log("end"))

while os.path.exists(os.environ.get("APP_HANG_IF", "")):
    time.sleep(0.1)


async def has_directory(query, body):
    return {"is_there": os.path.isdir(directory.name)}


application.ACTIONS["/has-directory"] = has_directory
app = application.app
