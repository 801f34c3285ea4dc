"""`memguard watch`: watch the memory of another process, of any language, and tell what it is.

In a terminal the page is drawn anew with each sample; else there is a line for each. The trace (-o)
is complete up to the newest sample at any time; the picture is drawn at the end, after Ctrl-C too.

Exit codes: 0 the time was over or the process ended; 2 wrong usage; 3 an alert, with
--fail-on-leak; 4 no such process; 5 no permission to look at it; 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memguard_native.memory.foreign import ForeignProbe
    from memguard_native.memory.sample import MemorySample
    from memguard_native.memory.snapshot import MonitorSnapshot
    from memguard_native.memory.watch import Watch

_SCHEMA = 1
_LEAK = 3
_INTERRUPTED = 130
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"
_ROWS = 10
# Lines of a page below the table and around it: two blank ones, the table's head, a forecast that
# takes two, the last line and the cursor's.
_FOOT = 7


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "watch",
        help="watch the memory of another process",
        description="Watch the memory of another process, of any language, without touching it: "
        "its course, a verdict, and a forecast of when it reaches its limit.",
        epilog="Exit codes: 0 the time was over or the process ended, 2 wrong usage, 3 an alert, "
        "with --fail-on-leak, 4 no such process, 5 no permission, 130 interrupted.",
    )
    add = parser.add_argument
    add("-p", "--pid", type=int, required=True, metavar="PID", help="the process")
    add("-i", "--interval", default="60s", metavar="60s", help="between two samples (default: 60s)")
    add("--for", dest="for_", metavar="2h", help="how long (default: until it ends, or Ctrl-C)")
    add("-o", "--output", metavar="FILE.csv", help="write a trace, for `memguard replay`")
    add("--png", metavar="FILE", help="draw it at the end; needs the extra 'plots'")
    add("--rule", default="floor", metavar="RULE", help="floor (default), window or both")
    add("--threshold", type=float, default=10.0, metavar="MB/H", help="growth that is no leak yet "
        "(default: 10)")  # fmt: skip
    add("--warm-up", metavar="DURATION", help="no verdict on so much of the beginning (default: "
        "what is left of the first 5 minutes of the process)")  # fmt: skip
    add("--limit", metavar="SIZE", help="forecast when this is reached, such as 2GiB (default: the "
        "limit of its control group)")  # fmt: skip
    add("--minute-s", type=float, default=60.0, metavar="SECONDS", help="that stand for one minute "
        "(default: 60): for programs that leak in time lapse")  # fmt: skip
    add("--json", action="store_true", help="one object a line for each sample, with a schema")
    add("--fail-on-leak", action="store_true", help="exit with 3 if there is an alert")
    add("-v", "--verbose", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Watch and tell. Raises ConfigError, ProcessGoneError, ProcessDeniedError, OSError."""
    from memguard_native.memory.foreign import foreign_probe

    _check(options)
    return Session(options, foreign_probe(options.pid)).run()


def _check(options: argparse.Namespace) -> None:
    from memguard_native.errors import ConfigError, is_finite_number
    from memguard_native.memory.picture import check_picture

    if not 0 < options.pid < 2**31:
        raise ConfigError("--pid", options.pid, "must be the id of a process, above 0")
    if not is_finite_number(options.minute_s) or options.minute_s <= 0:
        raise ConfigError("--minute-s", options.minute_s, "must be a finite number > 0")
    if options.png is not None:
        check_picture("--png", options.png)


def _refuse_kernel_thread(pid: int, sample: MemorySample) -> None:
    from memguard_native.errors import ConfigError

    if sample.rss_bytes is None and sample.private_bytes is None:
        allowed = "must be a process with memory of its own: this is a thread of the kernel"
        raise ConfigError("--pid", pid, allowed)


class Session:
    """One watch of one process. `clock` is a monotonic one, in seconds."""

    def __init__(
        self,
        options: argparse.Namespace,
        probe: ForeignProbe,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import sys

        from memguard_native.cli.durations import parse_duration
        from memguard_native.memory.config import DEFAULT_WARM_UP
        from memguard_native.memory.limits import parse_size
        from memguard_native.memory.replay import settings_for_others
        from memguard_native.memory.series import Series
        from memguard_native.memory.watch import Watch

        self._options = options
        self._probe = probe
        self._clock = clock
        self._begin = clock()
        self._interval = parse_duration("--interval", options.interval)
        self._for = math.inf if options.for_ is None else parse_duration("--for", options.for_)
        self._speed = 60.0 / options.minute_s
        if options.warm_up is None:
            warm_up = max(0.0, DEFAULT_WARM_UP - probe.age() * self._speed)
        else:
            warm_up = parse_duration("--warm-up", options.warm_up)
        self._watch: Watch = Watch(
            settings_for_others(
                rule=options.rule,
                interval=self._interval * self._speed,
                threshold_mb_per_hour=options.threshold,
                warm_up=warm_up,
                limit_bytes=None
                if options.limit is None
                else parse_size(options.limit, field="--limit"),
            )
        )
        self._series = Series()
        self._newest: deque[MemorySample] = deque(maxlen=_ROWS + 1)
        self._first_ns: int | None = None
        self._is_terminal = sys.stdout.isatty() and not options.json

    def run(self) -> int:
        """Until the time is over, the process ends, or Ctrl-C. Returns the exit code."""
        from contextlib import ExitStack

        from memguard_native.cli.printing import silence_log
        from memguard_native.errors import ProcessGoneError
        from memguard_native.memory.trace_file import TraceWriter

        silence_log()
        code = 0
        with ExitStack() as files:
            write = None
            if self._options.output is not None:
                write = files.enter_context(TraceWriter(self._options.output)).add
            try:
                self._loop(write)
                ended = "stopped"
            except ProcessGoneError:
                if self._first_ns is None:
                    raise
                ended = "gone"
            except KeyboardInterrupt:
                ended, code = "interrupted", _INTERRUPTED
        self._tell_end(ended)
        if self._options.png is not None and len(self._series):
            self._draw()
        if self._files() and self._first_ns is not None and not self._options.json:
            print(f"Written: {self._files()}.", flush=True)
        if code == 0 and self._options.fail_on_leak and self._watch.alerts:
            return _LEAK
        return code

    def _loop(self, write: Callable[[MemorySample], None] | None) -> None:
        next_ = self._begin
        while next_ - self._begin <= self._for:
            sample = self._probe.sample()
            if self._first_ns is None:
                _refuse_kernel_thread(self._probe.pid, sample)
            if write is not None:
                write(sample)
            self._take(sample)
            self._tell(sample)
            # By the plan and not by "now + interval", which drifts; what was slept through, by a
            # laptop too, is left out.
            late = math.floor((self._clock() - next_) / self._interval)
            next_ += self._interval * (1 + max(0, late))
            if next_ - self._begin <= self._for:
                self._probe.wait(max(0.0, next_ - self._clock()))

    def _take(self, sample: MemorySample) -> None:
        if self._first_ns is None:
            self._first_ns = sample.monotonic_ns
        passed_ns = (sample.monotonic_ns - self._first_ns) * self._speed
        sample = sample._replace(monotonic_ns=round(passed_ns))
        self._watch.observe(sample)
        self._series.add(sample)
        self._newest.append(sample)

    # --- telling ----------------------------------------------------------------------------------

    def _tell(self, sample: MemorySample) -> None:
        import json

        latest = self._watch.latest
        if self._options.json:
            print(json.dumps(self._row(sample, latest), allow_nan=False), flush=True)
        elif self._is_terminal:
            self._print_page(latest)
        else:
            print(_line(sample, latest), flush=True)

    def _row(self, sample: MemorySample, latest: MonitorSnapshot) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "pid": self._probe.pid,
            "sample": latest.sample_count - 1,
            "at": sample.wall_ns / 1e9,
            "private_bytes": sample.private_bytes,
            "rss_bytes": sample.rss_bytes,
            "swap_bytes": sample.swap_bytes,
            "threads": sample.threads,
            "state": str(latest.state),
            "limit_bytes": None if latest.limit is None else latest.limit.bytes,
            "limit_source": None if latest.limit is None else latest.limit.source,
            "alert": None if latest.alert is None else latest.alert.to_dict(),
            "suspect": None if latest.suspect is None else latest.suspect.to_dict(),
            "forecast": None if latest.forecast is None else latest.forecast.to_dict(),
        }

    def _print_page(self, latest: MonitorSnapshot, *, is_over: bool = False) -> None:
        import shutil

        width, height = shutil.get_terminal_size()
        lines = [part for line in self._head(latest, width - 1) for part in _by_words(line)]
        lines += ["", self._table(height - len(lines) - _FOOT), ""]
        if not is_over:
            lines += [part for line in self._foot(latest) for part in _by_words(line)]
        print(_HOME_AND_CLEAR + "\n".join(lines), flush=True)

    def _head(self, latest: MonitorSnapshot, width: int) -> Iterator[str]:
        from memguard_native.cli.printing import shown
        from memguard_native.memory.wording import count, span, sparkline

        private = self._series.private_mb
        taken = count(latest.sample_count, "sample")
        yield (
            f"{shown(self._probe.name)}, process {self._probe.pid}: {taken}, "
            f"{span(self._watched())}, every {span(self._interval)}"
        )
        yield self._verdict()
        yield ""
        if private:
            yield sparkline(private, min(72, max(width, 1)))
            yield f"{min(private):.1f} to {max(private):.1f} MB"

    def _foot(self, latest: MonitorSnapshot) -> Iterator[str]:
        from memguard_native.memory.wording import forecast_text, size

        if latest.forecast is not None:
            yield f"If it goes on like this, {forecast_text(latest.forecast)}."
        elif latest.limit is not None:
            yield f"The limit is {size(latest.limit.bytes)} ({latest.limit.source})."
        yield f"Ctrl-C ends it{' and leaves ' + self._files() if self._files() else ''}."

    def _files(self) -> str:
        from memguard_native.cli.printing import shown

        names = (self._options.output, self._options.png)
        return shown(", ".join(name for name in names if name is not None))

    def _table(self, height: int) -> str:
        from memguard_native.cli.printing import table

        samples = list(self._newest)
        before = [None, *samples][-len(samples) - 1 : -1]
        rows = [
            [
                time.strftime("%H:%M:%S", time.localtime(sample.wall_ns / 1e9)),
                _mb(sample.private_bytes),
                _change(sample, earlier),
                _mb(sample.rss_bytes),
                _mb(sample.swap_bytes),
                "-" if sample.threads is None else str(sample.threads),
            ]
            for earlier, sample in zip(before, samples, strict=True)
        ]
        head = ["TIME", "PRIVATE MB", "CHANGE", "RSS MB", "SWAP MB", "THREADS"]
        return table(head, rows[-max(1, min(_ROWS, height)) :])

    def _verdict(self) -> str:
        from memguard_native.memory.alert import MemoryState
        from memguard_native.memory.wording import verdict

        is_known = self._watch.latest.state is not MemoryState.learning
        return verdict(self._watch.alerts, self._watch.suspects, is_known=is_known)

    def _watched(self) -> float:
        return self._clock() - self._begin

    def _tell_end(self, ended: str) -> None:
        import json

        from memguard_native.cli.printing import shown
        from memguard_native.memory.wording import count, forecast_text, span

        latest = self._watch.latest
        if self._options.json:
            found = {
                "schema": _SCHEMA,
                "pid": self._probe.pid,
                "ended": ended,
                "samples": latest.sample_count,
                "verdict": self._verdict(),
                "alerts": [alert.to_dict() for alert in self._watch.alerts],
                "suspects": [suspect.to_dict() for suspect in self._watch.suspects],
                "forecast": None if latest.forecast is None else latest.forecast.to_dict(),
            }
            print(json.dumps(found, allow_nan=False), flush=True)
            return
        if self._is_terminal and self._series.private_mb:
            self._print_page(latest, is_over=True)
        did = {"gone": "has ended", "stopped": "was watched", "interrupted": "was watched"}[ended]
        taken = f"{count(latest.sample_count, 'sample')} in {span(self._watched())}"
        who = f"{shown(self._probe.name)}, process {self._probe.pid}"
        lines = [f"{who}, {did}: {taken}. {self._verdict()}."]
        if latest.forecast is not None and ended != "gone":
            lines.append(f"If it goes on like this, {forecast_text(latest.forecast)}.")
        for line in lines:
            print("\n".join(_by_words(line)) if self._is_terminal else line, flush=True)

    def _draw(self) -> None:
        from memguard_native.memory.picture import draw_growth
        from memguard_native.memory.wording import count, span

        latest = self._watch.latest
        draw_growth(
            self._options.png,
            self._series,
            title=self._verdict(),
            subtitle=f"{self._probe.name}, process {self._probe.pid}: "
            f"{count(latest.sample_count, 'sample')} in {span(self._watched())}",
            alerts=self._watch.alerts,
            suspects=self._watch.suspects,
            forecast=latest.forecast,
            limit=latest.limit,
        )


def _by_words(line: str) -> list[str]:
    """`line`, broken where a terminal would break it in the middle of a figure."""
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size().columns - 1, 20)
    return textwrap.wrap(line, width, break_long_words=False) or [""]


def _line(sample: MemorySample, latest: MonitorSnapshot) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(sample.wall_ns / 1e9))
    told = [
        f"{moment}  private {_mb(sample.private_bytes)} MB  rss {_mb(sample.rss_bytes)} MB",
        f"threads {'-' if sample.threads is None else sample.threads}",
        str(latest.state),
    ]
    raised = latest.alert or latest.suspect
    if raised is not None:
        told.append(f"{raised.rate_mb_per_hour:+.1f} MB/h")
    return "  ".join(told)


def _change(sample: MemorySample, earlier: MemorySample | None) -> str:
    from memguard_native.memory.wording import change

    if earlier is None or sample.private_bytes is None or earlier.private_bytes is None:
        return "-"
    return change((sample.private_bytes - earlier.private_bytes) / 2**20)


def _mb(count_bytes: int | None) -> str:
    return "-" if count_bytes is None else f"{count_bytes / 2**20:.1f}"
