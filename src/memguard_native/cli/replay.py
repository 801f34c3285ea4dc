"""`memguard replay`: what the memory guard says of recorded traces, and would have said when.

Exit codes: 0 success; 2 wrong usage or a file that is no trace; 3 an alert, with --fail-on-leak;
130 interrupted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memguard_native.memory.replay import Replay

_LEAK = 3
_SPARKLINE = 72
_MOST_ROWS = 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "replay",
        help="judge recorded traces of memory",
        description="Run the memory guard over recorded traces (CSV, as `memguard watch -o` writes "
        "them) and tell what it says: leak or not, since when, how fast, why, and until when.",
        epilog="Exit codes: 0 success, 2 wrong usage or a file that is no trace, 3 an alert, with "
        "--fail-on-leak, 130 interrupted.",
    )
    add = parser.add_argument
    add("traces", nargs="+", metavar="TRACE.csv", help="one or several")
    add("--minute-s", type=float, default=60.0, metavar="SECONDS", help="of the trace that stand "
        "for one minute (default: 60)")  # fmt: skip
    add("--rule", default="floor", metavar="RULE", help="floor (default), window or both")
    add("--threshold", type=float, default=10.0, metavar="MB/H", help="growth that is no leak yet "
        "(default: 10)")  # fmt: skip
    add("--warm-up", default="5m", metavar="DURATION", help="no verdict on so much of the "
        "beginning (default: 5m)")  # fmt: skip
    add("--limit", metavar="SIZE", help="forecast when this is reached, such as 2GiB")
    add("--no-load", action="store_true", help="leave out what the trace tells of the load")
    add("--json", action="store_true", help="one object a line for each trace, with a schema")
    add("--png", metavar="FILE", help="draw it; for one trace; needs the extra 'plots'")
    add("--fail-on-leak", action="store_true", help="exit with 3 if there is an alert")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge and tell. Raises ConfigError, TraceError."""
    import json

    from memguard_native.cli.durations import parse_duration
    from memguard_native.cli.printing import silence_log
    from memguard_native.errors import ConfigError
    from memguard_native.memory.limits import parse_size
    from memguard_native.memory.picture import check_picture
    from memguard_native.memory.replay import replay

    if options.png is not None:
        if len(options.traces) > 1:
            raise ConfigError("--png", options.png, "is for one trace")
        check_picture("--png", options.png)
    warm_up = parse_duration("--warm-up", options.warm_up)
    limit_bytes = None if options.limit is None else parse_size(options.limit, field="--limit")
    silence_log()
    has_alert = False
    for place, trace in enumerate(options.traces):
        found = replay(
            trace,
            rule=options.rule,
            threshold_mb_per_hour=options.threshold,
            warm_up=warm_up,
            limit_bytes=limit_bytes,
            minute_s=options.minute_s,
            with_load=not options.no_load,
        )
        has_alert = has_alert or bool(found.alerts)
        if options.json:
            print(json.dumps(found.to_dict(), allow_nan=False), flush=True)
        else:
            print("\n\n" * (place > 0) + "\n".join(_report(found)), flush=True)
        if options.png is not None:
            _draw(found, options.png)
    return _LEAK if has_alert and options.fail_on_leak else 0


def _report(found: Replay) -> Iterator[str]:
    from memguard_native.cli.printing import shown
    from memguard_native.memory.wording import forecast_text, sparkline

    yield f"{shown(found.trace)}: {_verdict(found)}"
    yield ""
    yield _summary(found)
    yield sparkline(found.series.private_mb, _SPARKLINE)
    if found.alerts or found.suspects:
        yield ""
        yield _raised(found)
    if found.alerts and (found.alerts[-1].cause_text or found.alerts[-1].parts_mb_per_hour):
        yield ""
        yield from _cause(found)
    if found.forecast is not None:
        yield ""
        yield f"If it goes on like this, {forecast_text(found.forecast)}."


def _verdict(found: Replay) -> str:
    from memguard_native.memory.alert import MemoryState
    from memguard_native.memory.wording import verdict

    is_known = found.state is not MemoryState.learning
    return verdict(found.alerts, found.suspects, is_known=is_known)


def _summary(found: Replay) -> str:
    from memguard_native.memory.wording import count, span

    private = found.series.private_mb
    between = f"{min(private):.1f} to {max(private):.1f} MB" if private else "unknown memory"
    return f"{count(found.samples, 'sample')}, {span(found.minutes * 60)}, {between}"


def _raised(found: Replay) -> str:
    from memguard_native.cli.printing import table
    from memguard_native.memory.wording import rate, rate_of, span

    def at(number: int) -> str:
        return span(found.series.minute_of(number) * 60)

    def cleared(number: int | None) -> str:
        return "-" if number is None else at(number)

    rows = [
        (one.sample, ["suspect", at(one.sample), str(one.sample), rate(one.rate_mb_per_hour), "-",
                      "-", cleared(one.cleared_sample)])
        for one in found.suspects
    ] + [
        (one.sample, [f"{one.severity}", at(one.sample), str(one.sample), rate_of(one), one.signal,
                      one.cause, cleared(one.cleared_sample)])
        for one in found.alerts
    ]  # fmt: skip
    cells = [row for _, row in sorted(rows, key=lambda row: row[0])]
    left_out = len(cells) - _MOST_ROWS
    head = ["RAISED", "AFTER", "SAMPLE", "GROWTH", "OF", "CAUSE", "CLEARED AFTER"]
    more = f"\n... and {left_out} more; --json has all of them" if left_out > 0 else ""
    return table(head, cells[:_MOST_ROWS]) + more


def _cause(found: Replay) -> Iterator[str]:
    from memguard_native.memory.wording import change

    alert = found.alerts[-1]
    yield f"Cause: {alert.cause_text or alert.cause}"
    for part, mb_per_hour in alert.parts_mb_per_hour.items():
        yield f"  {part:14} {change(mb_per_hour):>8} MB/h"


def _draw(found: Replay, path: str) -> None:
    from pathlib import Path

    from memguard_native.memory.picture import draw_growth

    draw_growth(
        path,
        found.series,
        title=_verdict(found),
        subtitle=f"{Path(found.trace).name}: {_summary(found)}",
        alerts=found.alerts,
        suspects=found.suspects,
        forecast=found.forecast,
        limit=found.limit,
    )
