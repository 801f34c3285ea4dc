"""`memguard recycle`: have a worker replaced, as its supervisor would for a reason of its own.

Exit codes: 0 it was asked; 1 no supervisor, no such worker, or no answer; 2 wrong usage.
"""

from __future__ import annotations

import argparse


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    from memguard_native.cli.workers import add_choice

    parser = commands.add_parser(
        "recycle",
        help="replace a worker of memguard serve, or all, one after the other",
        usage="memguard recycle [OPTIONS] NUMBER | --all",
        description="Have a worker replaced, or all of them, one after the other. It returns at "
        "once; memguard workers shows how it goes.",
        epilog="Exit codes: 0 asked, 1 no supervisor, no such worker or no answer, 2 wrong usage.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("number", nargs="?", type=int, metavar="NUMBER", help="from 0")
    which.add_argument("--all", action="store_true", help="all of them")
    add_choice(parser)
    add = parser.add_argument
    add("--json", action="store_true", help="one object, with a schema number")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask. Raises ConfigError, SegmentError, SupervisorError."""
    import json

    from memguard_native.cli.workers import chosen
    from memguard_native.errors import ConfigError
    from memguard_native.recycling.control import ask, pid_of

    found = chosen(options)
    if len(found) > 1:
        numbers = ", ".join(str(pid_of(path)) for path in found)
        raise ConfigError("--pid", options.pid, f"must be one of {numbers}")
    request = {"command": "recycle", "number": options.number, "reason": "manual"}
    answer = ask(found[0], request)
    if options.json:
        print(json.dumps(answer))
    else:
        numbers = ", ".join(map(str, answer["asked"]))
        print(f"to be replaced: {numbers}; memguard workers shows how it goes")
    return 0
