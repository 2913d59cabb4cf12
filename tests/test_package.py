"""What surrounds the solvers: the built package, its types, `python -m fastridge` and `python -m bench`."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

import fastridge
from fastridge import __main__ as command
from fastridge import functional

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fastridge.__file__).parent


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def unbuilt(tmp_path):
    """A folder with the package as a checkout has it before the kernels are built"""
    shutil.copytree(PACKAGE, tmp_path / "fastridge", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return tmp_path


def test_kernels_that_are_not_built_are_said_to_be_just_that(unbuilt):
    done = run("-c", "import fastridge", cwd=unbuilt)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "circular" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: fastridge's compiled kernels are not built")
    assert "python -m pip install -e ." in last
    assert str(unbuilt / "fastridge" / "_kernels") in last


def test_a_kernel_that_does_not_load_says_why_itself(unbuilt):
    (unbuilt / "fastridge" / "_kernels" / f"blas{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"no library")
    done = run("-c", "import fastridge", cwd=unbuilt)
    assert done.returncode == 1
    assert "not built" not in done.stderr
    assert "blas" in done.stderr.splitlines()[-1]


def test_info_names_what_runs(capsys):
    assert command.main(["info"]) == 0
    said = capsys.readouterr().out
    for wanted in (fastridge.__version__, str(PACKAGE), "scikit-learn", "SIMD", "threads", "BLAS"):
        assert wanted in said


def test_check_passes(capsys):
    assert command.main(["check"]) == 0
    assert "All fits are as accurate as they claim." in capsys.readouterr().out


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: replace(answer, coef=answer.coef * (1 + 1e-5)),
        lambda answer: replace(answer, report=replace(answer.report, status=fastridge.Status.MAX_ITER)),
        lambda answer: replace(answer, coef=answer.coef * (1 + 5e-7), report=replace(answer.report, error_bound=1e-8)),
    ],
    ids=["wrong", "did not converge", "false bound"],
)
def test_check_fails_where_an_answer_is_not_what_it_claims(spoil, monkeypatch, capsys):
    ridge = functional.ridge
    monkeypatch.setattr(functional, "ridge", lambda *arguments, **options: spoil(ridge(*arguments, **options)))
    assert command.main(["check"]) == 1
    assert "WRONG" in capsys.readouterr().out


RIGHT = """
import numpy as np
from fastridge import FitReport, Plan, Ridge, RidgeClassifier, RidgeCV, RidgePath, Solution, Status, explain, ridge, ridge_path

X, y = np.eye(3), np.ones(3)
solution: Solution = ridge(X, y, alpha=1.0, solver="cg")
report: FitReport = solution.report
status: Status = report.status
path: RidgePath = ridge_path(X, y, [1, 10])
plan: Plan = explain(X, y, alpha=np.float32(1.0))
model: Ridge = Ridge(alpha=1.0).fit(X, y)
labels: RidgeClassifier = RidgeClassifier(alpha=[1, 0.5]).fit(X, y)
chosen = [RidgeCV("auto").fit(X, y), RidgeCV(10), RidgeCV((0.1, 1)), RidgeCV(np.logspace(-3, 3))]
print(solution, report, status, path, plan, model.report_, labels, chosen)
"""
WRONG = """
from fastridge import Rigde
import fastridge
fastridge.rigde([[1.0]], [1.0])
fastridge.ridge([[1.0]], [1.0], tol="small")
fastridge.ridge([[1.0]], [1.0], solver="lsqr")
fastridge.ridge_path([[1.0]], [1.0], "many")
fastridge.explain([[1.0]], solver="sag")
fastridge.Ridge(alpha="x")
fastridge.Ridge(solver="lsqr")
fastridge.Ridge(alhpa=1.0)
fastridge.RidgeClassifier(solver="saga")
fastridge.RidgeCV(alphas="automatic")
"""
CHECKERS = {"mypy": ("mypy", "--strict", "--follow-imports=silent"), "pyright": ("basedpyright", "--level", "error")}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_knows_every_public_name_and_no_other(checker, tmp_path):
    module, *options = CHECKERS[checker]
    pytest.importorskip(module)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    installed = "site-packages" in PACKAGE.parts
    where = {"pythonPlatform": "Linux", "typeCheckingMode": "strict"} | (
        {} if installed else {"extraPaths": [str(PACKAGE.parent)]}
    )
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(where))
    path = {} if installed else {"MYPYPATH": str(PACKAGE.parent)}
    done = run("-m", module, *options, "right.py", "wrong.py", cwd=tmp_path, **path)
    found = re.findall(r"(right|wrong)\.py:(\d+).*? error: (.*)", done.stdout)
    assert {file for file, *_ in found} == {"wrong"}, done.stdout + done.stderr
    assert {int(line) for _, line, _ in found} == {2, *range(4, WRONG.count("\n") + 1)}, done.stdout + done.stderr
    assert "Rigde" in found[0][2]


@pytest.fixture
def bench(monkeypatch, capsys):
    """Run `python -m bench` here; return its exit status and what it printed"""
    monkeypatch.syspath_prepend(ROOT)
    from bench.__main__ import main

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        status = main()
        return status, capsys.readouterr()

    return called


def test_measuring_the_machine_needs_no_pytest():
    done = run("-c", "import sys; sys.modules['pytest'] = None; import bench.__main__", cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["run", "rows.json", "--cases", "smal,text_wide"], "no case matches 'smal'; did you mean small"),
        (["run", "rows.json", "--contenders", "fastrige"], "no contender matches 'fastrige'; did you mean fastridge"),
        (["run", "rows.json", "--cases", "uci_protein"], "does not hold the data of 'uci_protein'"),
        (["run", Path("nowhere", "rows.json")], "there is no folder"),
        (["run", "other.json"], "other.json is not a file that `python -m bench run` saved"),
        (["report", "missing.json"], "missing.json"),
        (["report", "other.json"], "other.json is not a file that `python -m bench run` saved"),
    ],
)
def test_mistakes_at_the_command_line_of_the_benchmarks_take_one_line(arguments, wanted, bench, tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text("[1]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTRIDGE_DATA", str(tmp_path))
    status, said = bench(*arguments)
    assert status == 2
    assert said.out == ""
    assert wanted in said.err
    assert said.err.count("\n") == 1
    assert (tmp_path / "other.json").read_text() == "[1]"


def test_absent_data_are_named_and_rows_are_kept_as_they_come(tmp_path):
    """A run that is cut off in its second row leaves the first"""
    script = """
import os, sys
import bench.test_rows as rows
from bench.__main__ import main
steps = iter(range(2))
traced = rows._traced
def cut(work):
    if next(steps):
        sys.stdout.flush()
        os._exit(9)  # as if killed: nothing is cleaned up
    return traced(work)
rows._traced = cut
sys.argv = ["bench", "run", sys.argv[1], "--quick", "--cases=small,golub", "--contenders=fastridge,fastridge-svd"]
main()
"""
    output = tmp_path / "rows.json"
    # The package that is tested comes first, be it this checkout's or an installed one.
    path = os.pathsep.join([str(PACKAGE.parent), str(ROOT)])
    done = run("-c", script, str(output), cwd=tmp_path, FASTRIDGE_DATA=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 9, done.stdout + done.stderr
    assert "does not hold their data: golub" in done.stdout
    shown = run("-m", "bench", "report", str(output), cwd=tmp_path, PYTHONPATH=path)
    assert shown.returncode == 0, shown.stderr
    assert "small" in shown.stdout
    assert "data were not there: golub" in shown.stdout
