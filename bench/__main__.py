"""Run the benchmarks, print their table, or measure the machine: `python -m bench run | report | machine | streams | dask`."""

import argparse
import json
import sys
from pathlib import Path

from bench import cases, machine, report


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="time all contenders and save the rows")
    run.add_argument(
        "output", type=Path, help="JSON file, written after every row; if it exists, its tols are not searched for again"
    )
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
    files = commands.add_parser("streams", help="fit files that are larger than the memory allowed, beside bare reading")
    files.add_argument("--gigabytes", type=float, default=4.3, help="of the array on disk; three files are written")
    files.add_argument("--categories", type=int, metavar="ROWS", help="instead, one-hot columns of categories: how many rows")
    files.add_argument("--classes", type=int, metavar="ROWS", help="instead, classes, beside torch: how many rows")
    clusters = commands.add_parser("dask", help="fits on dask workers beside those of one process")
    clusters.add_argument("--gigabytes", type=float, default=1.6, help="of the rows, which lie in memory twice")
    clusters.add_argument("--workers", type=int, default=2)
    clusters.add_argument("--growth", action="store_true", help="instead, print how a product grows, and a model fitted to that")
    arguments = parser.parse_args()

    try:
        if arguments.command == "run":
            return _run(arguments)
        if arguments.command == "report":
            _report(arguments)
        elif arguments.command == "streams":
            from bench import classes, streams

            if arguments.categories is not None:
                print(streams.measure_categories(arguments.categories))
            elif arguments.classes is not None:
                print(classes.measure(arguments.classes))
            else:
                print(streams.measure(arguments.gigabytes))
        elif arguments.command == "dask":
            from bench import clusters, growth

            if arguments.growth:
                points = growth.measure()
                print(json.dumps({"points": points, "constants": growth.fitted(points)}, indent=2))
                return 0
            for line in clusters.measure(arguments.gigabytes, arguments.workers):
                print(line, flush=True)
        else:
            print(json.dumps(machine.describe(), indent=2))
        return 0
    except (cases.UnknownName, report.NotARun, ImportError, OSError) as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 2


def _run(arguments) -> int:
    try:
        import pytest
        import pytest_benchmark  # noqa: F401
    except ImportError:
        raise ImportError('run needs pytest and pytest-benchmark: python -m pip install -e ".[test]"') from None
    from bench import peers  # loads fastridge, which may not be built here, and scikit-learn

    if not arguments.output.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {arguments.output.absolute().parent} for the results")
    if arguments.output.exists():
        report.load(arguments.output)  # refuses to overwrite what is not a run
    cases.select(arguments.cases)
    peers.select(arguments.contenders)
    if absent := cases.absent(arguments.cases):
        print(f"Not run, since {cases.data_folder()} does not hold their data: {', '.join(absent)}")
    options = ["-q", f"--cases={arguments.cases}", f"--contenders={arguments.contenders}", f"--rows={arguments.output}"]
    options += [] if arguments.quick else ["--full"]
    return pytest.main([str(Path(__file__).parent), *options])


def _report(arguments) -> None:
    if arguments.plot:
        try:
            from bench import pictures
        except ImportError:
            raise ImportError('a picture needs matplotlib: python -m pip install -e ".[plot]"') from None
    stored = report.load(arguments.input, cases=arguments.cases)
    shown = report.summary(stored) if arguments.summary else report.text(stored)
    if arguments.output:
        arguments.output.write_text(shown + "\n")
    else:
        print(shown)
    if arguments.plot:
        pictures.save(stored, arguments.plot)


if __name__ == "__main__":
    sys.exit(main())
