"""Add the suite's options, choose its rows, and store the machine's limits beside the timings."""

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bench import machine
from bench.cases import select
from bench.peers import contenders

IN_FAMILIES = ("fastridge", "sklearn-cholesky", "sklearn-lsqr", "sklearn-sparse_cg")


def pytest_addoption(parser):
    """Add the options that `python -m bench run` passes on."""
    group = parser.getgroup("ridge benchmarks")
    group.addoption("--cases", default="*", help="comma-separated names or shell patterns")
    group.addoption("--contenders", default="*", help="comma-separated names or shell patterns")
    group.addoption("--full", action="store_true", help="full sizes; without it the made sets shrink to seconds in all")
    group.addoption("--tols-from", metavar="JSON", help="take the peers' tol from the rows of an earlier run")


def pytest_generate_tests(metafunc):
    """Pair every chosen case with every chosen contender, case by case."""
    config = metafunc.config
    patterns = config.getoption("contenders").split(",")
    pairs = [
        pytest.param(case, contender, id=f"{case.name}-{contender.name}")
        for case in select(config.getoption("cases"))
        for contender in contenders()
        if contender.task == case.task and any(fnmatch(contender.name, pattern) for pattern in patterns)
        if case.family is None or contender.name in IN_FAMILIES
    ]
    metafunc.parametrize(("case", "contender"), pairs)


def pytest_benchmark_update_machine_info(config, machine_info):
    """Measure the machine in the same process as the rows."""
    machine_info["limits"] = machine.describe()


@pytest.fixture(scope="session")
def known_tols(request) -> dict:
    """Map (case, contender, scale) to the tol that reached the target in an earlier run."""
    path = request.config.getoption("tols_from")
    if not path:
        return {}
    rows = [row["extra_info"] for row in json.loads(Path(path).read_text())["benchmarks"]]
    return {
        (row["case"], row["contender"], row["scale"]): row["tol"] for row in rows if row["tol"] is not None and row["reached"]
    }


@pytest.fixture(scope="session")
def fastest() -> dict:
    """Map (case, is ours) to the median of the fastest row so far that reached the target."""
    return {}
