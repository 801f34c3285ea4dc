"""Runs `recycling.run` with arguments from the command line, as JSON; prints the URL once ready.

Of its own: `as_object`, the application itself is given; `refused_starts`, at which starts of a
process, counted from 1, the system has none for us; `ignored` signals; `on_ready_fails`;
`has_directory`, a temporary one is there before the service, and it is told whether it is after it.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
from typing import Any

from memguard_native import recycling
from memguard_native.errors import ConfigError


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    arguments = json.loads(sys.argv[1])
    policy = recycling.RecyclePolicy(**arguments.pop("policy", {}))
    app = arguments.pop("app")
    _refuse(arguments.pop("refused_starts", []))
    for name in arguments.pop("ignored", []):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    on_ready_fails = arguments.pop("on_ready_fails", False)

    def on_ready(url: str) -> None:
        print(url, flush=True)
        if on_ready_fails:
            raise RuntimeError("on_ready of the test")

    if arguments.pop("as_object", False):
        from application import app as given

        app = given
    has_directory = arguments.pop("has_directory", False)
    directory = tempfile.TemporaryDirectory() if has_directory else None
    try:
        code = recycling.run(app, policy=policy, port=0, on_ready=on_ready, **arguments)
        if directory is not None:
            print(f"the directory is there: {os.path.isdir(directory.name)}", file=sys.stderr)
        return code
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2


def _refuse(starts: list[int]) -> None:
    count = itertools.count(1)
    spawn = os.posix_spawn

    def spawn_or_not(*arguments: Any, **more: Any) -> int:
        if next(count) in starts:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return spawn(*arguments, **more)

    os.posix_spawn = spawn_or_not


if __name__ == "__main__":
    sys.exit(main())
