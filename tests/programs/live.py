"""Runs one of the twins with a `MemoryMonitor` in the process, and prints what it tells.

    python -m tests.programs.live dict_leaks --minutes 100 --minute-s 0.1

Standard output gets one JSON object a line: {"alert": {...}} and {"action": {...}} as they come,
and at the end {"samples": n, "state": "..."}.
"""

import argparse
import json
import os
import threading

from tests.programs.recorder import run
from tests.programs.registry import Service, load_programs

from memguard_native import MemoryMonitor
from memguard_native.memory.actions import ActionRecord, Step
from memguard_native.memory.alert import Alert


def main() -> None:
    """The command line."""
    programs = load_programs("twins")
    parser = argparse.ArgumentParser(prog="python -m tests.programs.live", description=__doc__)
    parser.add_argument("name", choices=sorted(programs), metavar="NAME")
    parser.add_argument("--minutes", type=int, default=100)
    parser.add_argument("--minute-s", type=float, default=0.1)
    parser.add_argument("--warm-up", type=float, default=0.0, help="minutes")
    parser.add_argument("--actions", default="log")
    parser.add_argument("--until", choices=("alert", "trim"), help="what ends the run early")
    options = parser.parse_args()

    printing = threading.Lock()

    def tell(**what: object) -> None:
        with printing:
            print(json.dumps(what), flush=True)

    def on_alert(alert: Alert) -> None:
        tell(alert=alert.to_dict())
        if options.until == "alert":
            end()

    def on_action(record: ActionRecord) -> None:
        tell(action=record.to_dict())
        if options.until == record.step == Step.trim:
            end()

    def end() -> None:
        snapshot = monitor.snapshot()
        tell(samples=snapshot.sample_count, state=str(snapshot.state))
        # Threads that never end would keep us for ever.
        os._exit(0)

    monitor = MemoryMonitor(
        interval=options.minute_s,
        minute_s=options.minute_s,
        rule="floor",
        warm_up=options.warm_up * 60.0,
        actions=options.actions,
        on_alert=on_alert,
        on_action=on_action,
    )
    monitor.start()
    run(programs[options.name], Service(seed=0), minutes=options.minutes, minute_s=options.minute_s)
    end()


if __name__ == "__main__":
    main()
