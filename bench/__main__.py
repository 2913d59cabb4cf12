"""Run the benchmarks, print their table, or measure the machine: `python -m bench run | report | machine`."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from bench import machine, report


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="time all contenders and save the rows")
    run.add_argument("output", type=Path, help="JSON file to write; if it exists, its tols are not searched for again")
    run.add_argument("--cases", default="*", help="comma-separated names or shell patterns")
    run.add_argument("--contenders", default="*", help="comma-separated names or shell patterns")
    run.add_argument("--quick", action="store_true", help="small versions of all cases: a trial of the suite")
    show = commands.add_parser("report", help="print the markdown tables of a run")
    show.add_argument("input", type=Path, help="JSON file written by run")
    show.add_argument("--cases", default="*", help="comma-separated names or shell patterns")
    show.add_argument("--summary", action="store_true", help="only the short table: a line for each case")
    show.add_argument("--output", type=Path, metavar="MD", help="write there instead of to standard output")
    show.add_argument("--plot", type=Path, metavar="PNG", help="save a picture as well; of cases scale_* alone, how times grow")
    commands.add_parser("machine", help="measure memory bandwidth and matrix products")
    arguments = parser.parse_args()

    if arguments.command == "run":
        return _run(arguments)
    if arguments.command == "report":
        stored = report.load(arguments.input, cases=arguments.cases)
        shown = report.summary(stored) if arguments.summary else report.text(stored)
        if arguments.output:
            arguments.output.write_text(shown + "\n")
        else:
            print(shown)
        if arguments.plot:
            from bench import pictures  # matplotlib is an extra

            pictures.save(stored, arguments.plot)
    else:
        print(json.dumps(machine.describe(), indent=2))
    return 0


def _run(arguments) -> int:
    options = ["-q", f"--cases={arguments.cases}", f"--contenders={arguments.contenders}"]
    options += [] if arguments.quick else ["--full"]
    options += [f"--tols-from={arguments.output}"] if arguments.output.exists() else []
    return pytest.main([str(Path(__file__).parent), *options, f"--benchmark-json={arguments.output}"])


if __name__ == "__main__":
    sys.exit(main())
