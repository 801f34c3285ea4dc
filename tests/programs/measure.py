"""Measures a program's rate: all ticks at once, without load, so without its noise.

    python -m tests.programs.measure leak_closures_14

Prints JSON: `live` and `private` are MB an hour after the onset, `before` the live growth up to the
onset. Where the label comes from, and what test_labels.py compares it with. A steady leak is
measured in the last third of the trace: what hides some of them is over by then.
"""

import argparse
import json
import os

from tests.programs import shapes
from tests.programs.recorder import TICKS_PER_MINUTE, mallinfo2, read_status
from tests.programs.registry import Program, Service, load_programs


def private_and_live() -> tuple[float, float]:
    """Both in MB."""
    status = read_status()
    private = (status["RssAnon"] + status["RssShmem"] + status["VmSwap"]) * 1024
    return private / 2**20, (private - mallinfo2().fordblks) / 2**20


def measure(program: Program) -> dict[str, float]:
    """The rates. The first two minutes do not count: they pay for what is made once."""
    service = Service(seed=1)
    tick = program.build(service)
    onset = program.onset + 2
    start = max(onset, program.minutes * 2 // 3) if program.steady else onset
    seen = {}
    for number in range(program.minutes * TICKS_PER_MINUTE):
        service.minute = (number + 1) / TICKS_PER_MINUTE
        tick()
        if service.minute in (2, onset, start, program.minutes):
            seen[service.minute] = private_and_live()
    hours = (program.minutes - start) / 60
    last = seen[program.minutes]
    return {
        "private": round((last[0] - seen[start][0]) / hours, 2),
        "live": round((last[1] - seen[start][1]) / hours, 2),
        "before": round((seen[onset][1] - seen[2][1]) / max(1.0, program.onset / 60), 2),
    }


def main() -> None:
    """The command line."""
    programs = load_programs("twins")
    parser = argparse.ArgumentParser(prog="python -m tests.programs.measure", description=__doc__)
    parser.add_argument("name", choices=sorted(programs), metavar="NAME")
    name = parser.parse_args().name
    shapes.Traffic.tick = lambda self: None  # type: ignore[method-assign]
    print(json.dumps(measure(programs[name])), flush=True)
    # Threads that never end would keep us for ever.
    os._exit(0)


if __name__ == "__main__":
    main()
