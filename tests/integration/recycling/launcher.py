"""Runs `recycling.run` with arguments from the command line, as JSON; prints the URL once ready."""

from __future__ import annotations

import json
import logging
import sys

from memguard_native import recycling
from memguard_native.errors import ConfigError


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    arguments = json.loads(sys.argv[1])
    policy = recycling.RecyclePolicy(**arguments.pop("policy", {}))
    app = arguments.pop("app")
    if arguments.pop("as_object", False):
        from application import app as given

        app = given
    try:
        return recycling.run(
            app, policy=policy, port=0, on_ready=lambda url: print(url, flush=True), **arguments
        )
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
