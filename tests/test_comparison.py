"""`fastridge bench`: errors are measured from outside, sides compared at equal accuracy; table, picture and JSON say the same."""

import json
import math
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import fastridge
from fastridge import comparison
from fastridge.comparison import NEAR, TARGET, Case, Row, Side, Truth, measure

SMALL = {
    "dense, tall": partial(comparison._dense, 300, 20),
    "dense, wide": partial(comparison._dense, 120, 300),
    "sparse, tall": partial(comparison._words, 2000, 200, 20),
    "sparse, wide": partial(comparison._words, 150, 600, 20),
    "one-hot": partial(comparison._categories, 800, 60),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_truth_is_that_of_the_closed_form(name):
    X, y = SMALL[name](1.0)
    A = X.toarray() if sp.issparse(X) else X
    A = A - A.mean(axis=0)
    H = A.T @ A + 0.5 * np.eye(A.shape[1])
    w = np.linalg.solve(H, A.T @ (y - y.mean()))
    truth = Truth(X, y, 0.5)
    assert truth.error(w) < 1e-9
    d = np.random.default_rng(1).standard_normal(w.shape) * w.std()
    assert truth.error(w + d) == pytest.approx(math.sqrt(d @ H @ d / (w @ H @ w)), rel=1e-6)
    solution = fastridge.ridge(X, y, 0.5)
    assert truth.error(solution.coef) <= solution.report.error_bound + 1e-9


@pytest.mark.parametrize("name", SMALL)
def test_both_sides_are_as_exact_and_timed_as_often(name):
    row = measure(Case(name, SMALL[name]), rounds=2)
    assert row.ours.error <= TARGET
    assert row.theirs.error <= NEAR * TARGET
    assert len(row.ours.times) == len(row.theirs.times) == 2
    assert row.ratio == row.theirs.seconds / row.ours.seconds > 0
    assert row.shape == SMALL[name](1.0)[0].shape
    solver, _, tol = row.theirs.solver.partition(", tol ")
    assert solver in ("cholesky", "sparse_cg", "lsqr")
    assert (tol == "") == (solver == "cholesky")


def test_a_choice_of_alpha():
    row = measure(Case("choice", SMALL["dense, tall"], alphas=np.logspace(-2, 4, 5)), rounds=1)
    assert row.ours.solver == row.theirs.solver == "RidgeCV"
    assert max(row.ours.error, row.theirs.error) <= TARGET


def test_a_peer_that_does_not_reach_the_target_is_not_timed(monkeypatch):
    monkeypatch.setattr(comparison, "TOLS", (0.5,))
    monkeypatch.setattr(Truth, "error", lambda self, coef: 1e-3)
    row = measure(Case("dense", SMALL["dense, tall"]), rounds=1)
    assert row.theirs is row.ratio is row.facts()["scikit_learn"] is None


def test_quick_data_are_the_same_in_small():
    for case in comparison.cases():
        quick, y = case.make(case.quick)
        assert y.shape == (quick.shape[0],)
        assert np.isfinite(y).all()
        stored = quick.nnz if sp.issparse(quick) else quick.size
        assert stored < 7e6
        if case.name.endswith("tall"):
            assert quick.shape[0] > 2 * quick.shape[1]
        if case.name.endswith("wide"):
            assert quick.shape[1] > 2 * quick.shape[0]


ROWS = [
    Row("one", (1000, 10), 10_000, Side("cg", 1e-8, [0.002, 0.001, 0.003]), Side("lsqr, tol 1e-08", 9e-7, [0.02, 0.03])),
    Row("two", (200, 3000), 99, Side("cg", 1e-9, [2.0]), None),
    Row("three", (50, 5), 250, Side("cholesky", 1e-15, [0.004]), Side("cholesky", 1e-15, [0.001])),
]


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The command, with rows that need no measuring"""
    typer = pytest.importorskip("typer")
    pytest.importorskip("rich")
    pytest.importorskip("pyarrow")
    from typer.testing import CliRunner

    from fastridge.cli import app

    asked = []

    def compare(quick, begins):
        asked.append(quick)
        for row in ROWS:
            begins(row.case)
            yield row

    monkeypatch.setattr(comparison, "compare", compare)
    monkeypatch.chdir(tmp_path)
    assert typer
    return asked, lambda *arguments: CliRunner().invoke(app, ["bench", *arguments])


def test_the_table(made):
    asked, run = made
    done = run("--quick")
    assert (done.exit_code, done.stderr) == (0, "")
    assert asked == [True]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1] == ["one", "1,000", "10", "2", "ms", "25", "ms", "12", "lsqr,", "tol", "1e-08"]
    assert lines[2] == ["two", "200", "3,000", "2.00", "s", "not", "reached"]
    assert lines[3] == ["three", "50", "5", "4", "ms", "1", "ms", "0.25", "cholesky"]
    assert "at an error of 1e-06 or less" in done.stdout
    run()
    assert asked == [True, False]


def test_json(made):
    said = json.loads(made[1]("--json").stdout)
    assert said["target"] == TARGET
    assert said["versions"]["fastridge"].startswith(fastridge.__version__)
    assert [case["case"] for case in said["cases"]] == ["one", "two", "three"]
    assert said["cases"][0]["fastridge"] == {"solver": "cg", "seconds": 0.002, "error": 1e-8}
    assert said["cases"][0]["scikit_learn"]["seconds"] == 0.025
    assert said["cases"][0]["ratio"] == 12.5
    assert said["cases"][1]["scikit_learn"] is None


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture(made, kind, tmp_path):
    pytest.importorskip("matplotlib")
    done = made[1]("--plot", f"bench.{kind}")
    assert done.exit_code == 0
    assert f"bench.{kind}" in done.stdout
    assert (tmp_path / f"bench.{kind}").stat().st_size > 1000
    done = made[1]("--plot", "bench.doc")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: --plot bench.doc: the name must end in one of")


def test_what_is_drawn():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.subplots()
    comparison.draw(ROWS, ax)
    ours, theirs = ax.get_lines()[-2:]
    assert list(ours.get_xdata()) == [row.ours.seconds for row in ROWS]
    assert list(theirs.get_xdata()) == [0.025, 0.001]
    assert list(theirs.get_ydata()) == [0, 2]
    assert [text.get_text() for text in ax.texts] == ["12.5 times", "1 / 4.0"]
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one\n1,000 x 10", "two\n200 x 3,000", "three\n50 x 5"]
    figure.savefig("/dev/null", format="png")
