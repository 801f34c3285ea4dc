"""`memguard breakers`: the breakers that the processes of this host share, seen from outside.

Without an action the segment is only read. An action is done as by one of its processes.

Exit codes: 0 success; 1 no such segment, or it cannot be used; 2 wrong usage or no such breaker;
130 interrupted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memguard_native.breaker.breaker import CircuitBreaker

_SCHEMA = 1
_ACTIONS = ("trip", "reset", "force-open", "disable", "shadow", "auto")
_LASTING = ("trip", "force-open", "disable")
_LONGEST_WATCH = 86400
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "breakers",
        help="show the shared breakers and workers of this host, or act on a breaker",
        description="Show the breakers of scope 'host' and the workers that share them; or act on "
        "one of them, for all of its processes.",
        epilog="Exit codes: 0 success, 1 no such segment or an unusable one, 2 wrong usage or no "
        "such breaker, 130 interrupted.",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="one breaker, in detail")
    add("action", nargs="?", metavar="ACTION", choices=_ACTIONS, help=", ".join(_ACTIONS))
    add("--namespace", metavar="NS", help="default: MEMGUARD_NAMESPACE, else 'default'")
    add("--for", dest="for_", metavar="15m", help=f"how long, for {', '.join(_LASTING)}")
    add("--reason", metavar="TEXT", help="told with the event and by the errors of rejected calls")
    add("--json", action="store_true", help="one object, with a schema number")
    add("--watch", nargs="?", type=float, const=1.0, metavar="SECONDS", help="again and again")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show or act. Raises ConfigError, SegmentError."""
    import json
    import sys
    import time

    _check(options)
    if options.action is not None:
        _act(options)
        return 0
    while True:
        found = _look(options.name, options.namespace)
        text = json.dumps(found) if options.json else _page(found, options.name is not None)
        if options.watch is not None and not options.json and sys.stdout.isatty():
            text = _CLEAR_SCREEN + text
        print(text, flush=True)
        if options.watch is None:
            return 0
        time.sleep(options.watch)


def _check(options: argparse.Namespace) -> None:
    from memguard_native.errors import ConfigError

    if options.for_ is not None and options.action not in _LASTING:
        allowed = f"is for the actions {', '.join(_LASTING)}"
        raise ConfigError("--for", options.for_, allowed)
    if options.reason is not None and options.action not in _LASTING:
        allowed = f"is for the actions {', '.join(_LASTING)}"
        raise ConfigError("--reason", options.reason, allowed)
    if options.watch is not None and options.action is not None:
        raise ConfigError("--watch", options.watch, "is for looking, without an action")
    if options.watch is not None and not 0 < options.watch <= _LONGEST_WATCH:
        allowed = f"must be seconds above 0, up to {_LONGEST_WATCH}"
        raise ConfigError("--watch", options.watch, allowed)


# --- acting ---------------------------------------------------------------------------------------


def _act(options: argparse.Namespace) -> None:
    import json

    from memguard_native.breaker import events
    from memguard_native.breaker.breaker import CircuitBreaker
    from memguard_native.breaker.config import check_period
    from memguard_native.cli.durations import parse_duration
    from memguard_native.cli.printing import shown

    seconds = None if options.for_ is None else parse_duration("--for", options.for_)
    check_period("--for", seconds)
    breaker = CircuitBreaker.attach(options.name, options.namespace)
    _do(breaker, options.action, seconds, options.reason)
    events.flush()
    if options.json:
        print(json.dumps({"schema": _SCHEMA, "breaker": breaker.snapshot().to_dict()}))
    else:
        print(f"{shown(breaker.name)}: {breaker.state}")


def _do(breaker: CircuitBreaker, action: str, seconds: float | None, reason: str | None) -> None:
    if action == "trip":
        breaker.trip(seconds, reason)
    elif action == "force-open":
        breaker.force_open(seconds, reason)
    elif action == "disable":
        breaker.disable(seconds, reason)
    else:
        getattr(breaker, action)()


# --- looking --------------------------------------------------------------------------------------


def _look(name: str | None, namespace: str | None) -> dict[str, Any]:
    from memguard_native.breaker import host
    from memguard_native.breaker.snapshot import BreakerSnapshot
    from memguard_native.memory.history import entries_of
    from memguard_native.segment import checked_namespace, look_at, path_of

    segment = look_at(path_of(checked_namespace(namespace)))
    core = segment.core
    # By its place: what a stranger wrote can have a name twice.
    only = None if name is None else host.index_of(core, name)
    breakers = [
        BreakerSnapshot.of(one, core.snapshot(index)).to_dict() | {"rules": core.rules(index)}
        for index, one in sorted(core.breaker_names().items(), key=lambda item: item[1])
        if only is None or index == only
    ]
    workers = [
        worker
        | {
            "history": [
                entry.sample._asdict()
                | {
                    "private_bytes": entry.sample.private_bytes,
                    "pid": entry.pid,
                    "generation": entry.generation,
                }
                for entry in entries_of(core, worker["slot"])
            ]
        }
        for worker in core.workers()
    ]
    return {
        "schema": _SCHEMA,
        "namespace": segment.namespace,
        "path": str(segment.path),
        "breakers": breakers,
        "workers": workers,
    }


def _page(found: dict[str, Any], is_detailed: bool) -> str:
    from memguard_native.cli.printing import learnt_in_words, shown, table

    if is_detailed:
        (breaker,) = found["breakers"]
        rules = breaker.pop("rules") or {}
        facts = [[key, _value(value)] for key, value in breaker.items() if key != "schema"]
        numbers = [[key, _value(value)] for key, value in rules.items()]
        return "\n\n".join((table([], facts), table(["RULE", ""], numbers)))
    breakers = [
        [
            shown(one["name"]),
            one["state"],
            str(one["failure_count"]),
            f"{one['window_failures']}/{one['window_calls']}",
            str(one["rejections"]),
            f"{one['retry_after']:.1f}" if one["retry_after"] else "-",
            one["cause"] or "-",
            ": ".join(map(shown, one["last_error"] or ["-"])),
        ]
        for one in found["breakers"]
    ]
    workers = [
        [
            str(one["slot"]),
            str(one["pid"] or "-"),
            "yes" if one["is_alive"] else "no",
            str(one["generation"]),
            f"{one['heartbeat_age']:.0f} s",
            str(one["requests_of_generation"]),
            _private_mb(one["history"]),
            str(len(one["history"])),
            learnt_in_words(one),
        ]
        for one in found["workers"]
    ]
    return "\n\n".join(
        (
            f"{shown(found['path'])}: {len(breakers)} breakers, {len(workers)} workers",
            table(
                [
                    "BREAKER",
                    "STATE",
                    "FAILED",
                    "WINDOW",
                    "REJECTED",
                    "RETRY",
                    "CAUSE",
                    "LAST ERROR",
                ],
                breakers,
            ),
            table(
                [
                    "SLOT",
                    "PID",
                    "ALIVE",
                    "OWNERS",
                    "BEAT",
                    "REQUESTS",
                    "PRIVATE MB",
                    "SAMPLES",
                    "LEARNT",
                ],
                workers,
            ),
        )
    )


def _private_mb(history: list[dict[str, Any]]) -> str:
    newest = history[-1]["private_bytes"] if history else None
    return "-" if newest is None else f"{newest / 2**20:.1f}"


def _value(value: object) -> str:
    from memguard_native.cli.printing import shown

    return "-" if value is None else shown(str(value))
