"""Runs one program, or prints the labels of all."""

import argparse
import csv
import os
import sys

from tests.programs.recorder import run
from tests.programs.registry import Service, load_programs


def main() -> None:
    """The command line of the package."""
    programs = load_programs()
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(programs), metavar="NAME")
    parser.add_argument("--labels", action="store_true", help="print all labels as CSV and exit")
    parser.add_argument("--minutes", type=int, help="default: what the program asks for")
    parser.add_argument("--minute-s", type=float, default=0.25, help="seconds that stand for one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", help="write the trace here; default: standard output")
    options = parser.parse_args()
    if options.labels:
        labels = [program.label() for program in programs.values()]
        writer = csv.DictWriter(sys.stdout, labels[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(labels)
        return
    if options.name is None:
        parser.error("give a NAME, or --list")
    program = programs[options.name]
    with open(options.csv, "w") if options.csv else sys.stdout as rows:
        run(
            program,
            Service(options.seed),
            minutes=options.minutes or program.minutes,
            minute_s=options.minute_s,
            rows=rows,
        )
        rows.flush()
        # What leaked is given back by the kernel: threads that never end would keep us for ever.
        os._exit(0)


if __name__ == "__main__":
    main()
