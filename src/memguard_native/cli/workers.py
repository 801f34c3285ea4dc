"""`memguard workers`: what the supervisors of this user say of their workers.

Exit codes: 0 success; 1 no supervisor, or it does not answer; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_WATCH = 86400
_CLEAR_SCREEN = "\x1b[H\x1b[2J"
_SHOWN_RECYCLES = 5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "workers",
        help="show the workers of memguard serve, and which were replaced",
        usage="memguard workers [OPTIONS]",
        description="Show the workers of each supervisor of this user and namespace, and which "
        "were replaced of late.",
        epilog="Exit codes: 0 success, 1 no supervisor or no answer, 2 wrong usage, 130 "
        "interrupted.",
    )
    add_choice(parser)
    add = parser.add_argument
    add("--json", action="store_true", help="an object a line for each supervisor")
    add("--watch", nargs="?", type=float, const=1.0, metavar="SECONDS", help="again and again")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Which supervisors are meant: for `chosen()`."""
    add = parser.add_argument
    add("--namespace", metavar="NS", help="default: MEMGUARD_NAMESPACE, else 'default'")
    add("--pid", type=int, metavar="N", help="the supervisor's process, if there are several")


def run(options: argparse.Namespace) -> int:
    """Show. Raises ConfigError, SegmentError, SupervisorError."""
    import json
    import sys
    import time

    from memguard_native.errors import ConfigError
    from memguard_native.recycling.control import ask

    if options.watch is not None and not 0 < options.watch <= _LONGEST_WATCH:
        allowed = f"must be seconds above 0, up to {_LONGEST_WATCH}"
        raise ConfigError("--watch", options.watch, allowed)
    while True:
        answers = [ask(path, {"command": "workers"}) for path in chosen(options)]
        if options.json:
            page = "\n".join(map(json.dumps, answers))
        else:
            page = "\n\n".join(_page(one, time.time()) for one in answers)
            if options.watch is not None and sys.stdout.isatty():
                page = _CLEAR_SCREEN + page
        print(page, flush=True)
        if options.watch is None:
            return 0
        time.sleep(options.watch)


def chosen(options: argparse.Namespace) -> list[Path]:
    """The control sockets of the supervisors that are meant; one at least.

    Raises ConfigError: no namespace. SupervisorError: there is none. SegmentError.
    """
    from memguard_native.errors import SupervisorError
    from memguard_native.recycling.control import find_supervisors, namespace_of, pid_of
    from memguard_native.segment import checked_namespace

    namespace = checked_namespace(options.namespace)
    found = find_supervisors(namespace)
    meant = [path for path in found if options.pid in (None, pid_of(path))]
    if meant:
        return meant
    if found:
        problem = f"no supervisor has process number {options.pid}"
        cure = f"give --pid one of {', '.join(str(pid_of(path)) for path in found)}"
    else:
        problem = "no supervisor runs"
        others = sorted({namespace_of(path) for path in find_supervisors(None)})
        cure = (
            f"give --namespace one of {', '.join(others)}"
            if others
            else "memguard serve starts one"
        )
    raise SupervisorError(f"namespace {namespace!r}", problem, cure)


# --- telling --------------------------------------------------------------------------------------


def _page(found: dict[str, Any], now: float) -> str:
    from memguard_native.cli.printing import table

    head = [
        "WORKER",
        "PID",
        "STATE",
        "AGE",
        "REQUESTS",
        "RUNNING",
        "OPEN",
        "OWN MB",
        "LIMIT MB",
        "BEAT",
        "MEMORY",
    ]
    parts = [_headline(found), table(head, [_row(one) for one in found["workers"]])]
    if found["recycles"]:
        titles = [
            "REPLACED",
            "WORKER",
            "REASON",
            "BOOT",
            "DRAIN",
            "HANDED OVER",
            "ABORTED",
            "FREED MB",
        ]
        newest = reversed(found["recycles"][-_SHOWN_RECYCLES:])
        parts.append(table(titles, [_recycle_row(one, now) for one in newest]))
    parts.append(_totals(found["totals"]))
    return "\n\n".join(parts)


def _headline(found: dict[str, Any]) -> str:
    from memguard_native.cli.printing import shown
    from memguard_native.memory.wording import span

    service = found["supervisor"]
    ready = sum(one["state"] == "ready" for one in found["workers"])
    return (
        f"{shown(service['app'])} at {shown(service['url'])}: {ready} of {service['wanted']} "
        f"workers ready, up {span(service['uptime'])} (process {service['pid']}, "
        f"{shown(service['start'])})"
    )


def _row(worker: dict[str, Any]) -> list[str]:
    from memguard_native.cli.printing import shown
    from memguard_native.memory.wording import span

    state = worker["state"]
    if worker["reason"] is not None:
        state += f" ({worker['reason']})"
    return [
        str(worker["number"]),
        _known(worker["pid"]),
        shown(state),
        span(worker["age"]),
        str(worker["requests"]),
        str(worker["in_flight"]),
        str(worker["connections"]),
        _mb(worker["own_bytes"]),
        _mb(worker["max_bytes"]),
        "-" if worker["heartbeat_age"] is None else f"{worker['heartbeat_age']:.1f} s",
        shown(_memory_in_words(worker)),
    ]


def _memory_in_words(worker: dict[str, Any]) -> str:
    from memguard_native.memory.wording import rate, span

    words = [worker["verdict"] or "-"]
    if worker["rate_mb_per_hour"]:
        words.append(rate(worker["rate_mb_per_hour"]))
    if worker["forecast_seconds"] is not None:
        words.append(f"limit in {span(worker['forecast_seconds'])}")
    return ", ".join(words)


def _recycle_row(record: dict[str, Any], now: float) -> list[str]:
    from memguard_native.cli.printing import shown
    from memguard_native.memory.wording import span

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    return [
        f"{span(max(0.0, now - record['at']))} ago",
        str(record["number"]),
        shown(record["reason"]),
        seconds(record["boot_s"]),
        seconds(record["drain_s"]),
        str(record["handed_over"]),
        str(record["aborted"]),
        _mb(record["freed_bytes"]),
    ]


def _totals(totals: dict[str, Any]) -> str:
    from memguard_native.cli.printing import shown
    from memguard_native.memory.wording import span

    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(totals["recycles"].items()))
    return (
        f"replaced: {shown(reasons) or 'none'}; connections: {totals['handed_over']} handed over, "
        f"{totals['aborted']} aborted; too few workers for {span(totals['capacity_gap_seconds'])}"
    )


def _known(value: object) -> str:
    return "-" if value is None else str(value)


def _mb(count_bytes: int | None) -> str:
    return "-" if count_bytes is None else f"{count_bytes / 2**20:.1f}"
