"""`memguard`: parses the command line and runs one command.

Exit codes: 0 success; 1 failure while running; 2 wrong usage, configuration or input; 3 a leak, if
asked to fail on one; 4 no such process; 5 no permission to look at it; 130 interrupted (Ctrl-C).
Results go to stdout, progress and logs to stderr. An error is one sentence; -v adds the traceback.

Start-up is a feature: `memguard --version` imports nothing but this module, and a command imports
its libraries when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse

SUCCESS = 0
FAILURE = 1
USAGE = 2
NO_PROCESS = 4
DENIED = 5
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:  # spares building the parsers
        return _print_version()
    parser, commands = _parsers()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(commands[options.command] if options.command else parser, unknown)
    if options.version:
        return _print_version()
    return _run(options)


def _print_version() -> int:
    from memguard_native._core import __version__

    print(f"memguard {__version__}")
    return SUCCESS


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Of the whole, and of each command by its name."""
    import argparse

    from memguard_native.cli import (
        breakers,
        doctor,
        embed,
        recycle,
        replay,
        serve,
        watch,
        workers,
    )

    parser = argparse.ArgumentParser(
        prog="memguard",
        description="Stop out-of-memory deaths and cascading failures in Python services.",
        epilog="Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 a leak (with "
        "--fail-on-leak), 4 no such process, 5 no permission, 130 interrupted.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in (breakers, doctor, embed, recycle, replay, serve, watch, workers):
        command.add_parser(commands)
    parser.set_defaults(run=lambda _options: _print_help(parser), verbose=False)
    return parser, dict(commands.choices)


def _refuse(parser: argparse.ArgumentParser, unknown: list[str]) -> NoReturn:
    """Exit as argparse does, with the option that was probably meant."""
    import difflib

    text = f"unrecognized arguments: {' '.join(unknown)}"
    known = [option for action in parser._actions for option in action.option_strings]
    wrong = [one.partition("=")[0] for one in unknown if one.startswith("--")]
    nearest = difflib.get_close_matches(wrong[0], known, n=1) if wrong else []
    parser.error("; the nearest is ".join([text, *nearest]))


def _print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return USAGE


def _run(options: argparse.Namespace) -> int:
    from memguard_native.errors import (
        ConfigError,
        ProcessDeniedError,
        ProcessGoneError,
        TraceError,
    )

    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who reads the output has seen enough, `head` for example. What is buffered has to go
        # somewhere, else the interpreter complains when it ends.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return FAILURE
    except (ConfigError, TraceError) as error:
        return _report(error, options.verbose, USAGE)
    except ProcessGoneError as error:
        return _report(error, options.verbose, NO_PROCESS)
    except ProcessDeniedError as error:
        return _report(error, options.verbose, DENIED)
    except Exception as error:  # noqa: BLE001 - the last resort: reported, never swallowed
        return _report(error, options.verbose, FAILURE)
    return code


def _report(error: Exception, verbose: bool, code: int) -> int:
    from memguard_native.errors import MemguardError

    if verbose:
        import traceback

        traceback.print_exception(error)
    # The texts of foreign errors can be bare ("7"), so their type says what they are about.
    text = str(error) if isinstance(error, MemguardError) else f"{type(error).__name__}: {error}"
    print(f"memguard: {text}", file=sys.stderr)
    return code
