"""Add the suite's options, choose its rows, and store them with the machine's limits."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import cases, machine, peers

IN_FAMILIES = ("fastridge", "sklearn-cholesky", "sklearn-lsqr", "sklearn-sparse_cg")


def pytest_addoption(parser):
    """Add the options that `python -m bench run` passes on."""
    group = parser.getgroup("ridge benchmarks")
    group.addoption("--cases", default="*", help="comma-separated names or shell patterns")
    group.addoption("--contenders", default="*", help="comma-separated names or shell patterns")
    group.addoption("--full", action="store_true", help="full sizes; without it the made sets shrink to seconds in all")
    group.addoption("--rows", metavar="JSON", help="save the rows there; if it exists, the peers' tols are taken from it")


def pytest_generate_tests(metafunc):
    """Pair every chosen case with every chosen contender, case by case."""
    config = metafunc.config
    try:
        chosen, contenders = cases.select(config.getoption("cases")), peers.select(config.getoption("contenders"))
    except cases.UnknownName as error:
        raise pytest.UsageError(str(error)) from None
    pairs = [
        pytest.param(case, contender, id=f"{case.name}-{contender.name}")
        for case in chosen
        for contender in contenders
        if contender.task == case.task
        if case.family is None or contender.name in IN_FAMILIES
    ]
    metafunc.parametrize(("case", "contender"), pairs)


@pytest.fixture(scope="session")
def known_tols(request) -> dict:
    """Map (case, contender, scale) to the tol that reached the target in an earlier run."""
    path = request.config.getoption("rows")
    if not path or not Path(path).exists():
        return {}
    rows = [row["extra_info"] for row in json.loads(Path(path).read_text())["benchmarks"]]
    return {
        (row["case"], row["contender"], row["scale"]): row["tol"] for row in rows if row["tol"] is not None and row["reached"]
    }


@pytest.fixture(scope="session")
def save_row(request, known_tols) -> Callable:
    """Return what adds a row to the file, which holds all rows so far at any time: a run may be cut off.

    The machine is measured first, in the same process.
    """
    path = request.config.getoption("rows")
    if not path:
        return lambda benchmark: None
    missing = cases.absent(request.config.getoption("cases"))
    stored = {"machine_info": {"limits": machine.describe()}, "absent": missing, "benchmarks": []}

    def save(benchmark) -> None:
        stats = {name: benchmark.stats[name] for name in ("min", "median", "iqr", "rounds")}
        stored["benchmarks"].append({"extra_info": benchmark.extra_info, "stats": stats})
        whole = Path(f"{path}.new")
        whole.write_text(json.dumps(stored, indent=1))
        os.replace(whole, path)

    return save


@pytest.fixture(scope="session")
def fastest() -> dict:
    """Map (case, is ours) to the median of the fastest row so far that reached the target."""
    return {}
