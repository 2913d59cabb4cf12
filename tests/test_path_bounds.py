"""Every point of a path within bounds is feasible, optimal, and as accurate as its own report claims."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, judge, make_weights, make_X, make_y, stacked

import fastridge
from fastridge import Status, ridge, ridge_path
from fastridge.solvers.bounded import columns, gram

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = {"tall": (60, 7), "square": (20, 20), "wide": (12, 40), "n=1": (1, 6), "p=1": (30, 1)}
ALPHAS = np.array([1.0, 1e3, 1e-4, 1.0, 30.0])


def box(p, seed=0):
    """Bounds of which some are infinite, and one pair meets"""
    rng = np.random.default_rng(seed)
    lower = np.where(rng.random(p) < 0.7, -0.3 * rng.random(p), -np.inf)
    upper = np.where(rng.random(p) < 0.7, 0.5 * rng.random(p), np.inf)
    lower[0] = upper[0] = 0.25
    return lower, upper


def check(found, X, y, bounds, weights=None, intercept=True, d=None, tol=1e-6):
    """Judge every point from outside"""
    p = X.shape[1]
    lower, upper = (np.broadcast_to(np.asarray(bound, dtype=np.float64), p) for bound in bounds)
    several = np.ndim(y) == 2
    for alpha, coef, intercepts, report in zip(found.alphas, found.coefs, found.intercepts, found.reports, strict=True):
        assert report.solver == "cd"
        for i, w in enumerate(coef if several else [coef]):
            target = y[:, i] if several else y
            K, t = stacked(X, target, alpha, weights, intercept, d)
            judge(type("Point", (), {"report": report}), w, K, t, lower.copy(), upper.copy(), tol)
            mean = np.average(target, weights=weights) - np.average(X.astype(float), axis=0, weights=weights) @ w
            assert np.ravel(intercepts)[i] == pytest.approx(mean if intercept else 0, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_matrix"])
@pytest.mark.parametrize("seed", range(3))
def test_grid(seed, storage, shape, lines, monkeypatch):
    if lines:
        monkeypatch.setattr(gram, "MAX_GRAM", 0)
    n, p = SHAPES[shape]
    intercept = seed < 2
    X = make_X(n, p, seed=n + 100 * p, dtype=("float64", "float32")[seed % 2])
    y = make_y(X, seed=3, n_targets=(0, 3)[seed == 1])
    weights = make_weights(n, seed=5) if seed == 2 else None
    d = np.linspace(0.5, 2, p) if seed == 1 else None
    bounds = box(p)
    arguments = {"sample_weight": weights, "fit_intercept": intercept, "penalty_weights": d, "bounds": bounds}
    found = ridge_path(STORAGES[storage](X), y, ALPHAS, **arguments)
    np.testing.assert_array_equal(found.alphas, ALPHAS)
    np.testing.assert_array_equal(found.coefs[0], found.coefs[3])
    check(found, X, y, bounds, weights, intercept, d)


@pytest.mark.parametrize("lines", [False, True])
def test_every_point_agrees_with_a_solve_of_its_own(lines, monkeypatch):
    if lines:
        monkeypatch.setattr(gram, "MAX_GRAM", 0)
    rng = np.random.default_rng(200)
    X = rng.standard_normal((400, 80)) + rng.standard_normal((400, 1))
    Y = X @ rng.standard_normal((80, 2)) + rng.standard_normal((400, 2))
    found = ridge_path(X, Y, 12, positive=True)
    assert found.converged
    assert (found.coefs >= 0).all()
    A = X - X.mean(axis=0)
    for alpha, coef, report in zip(found.alphas, found.coefs, found.reports, strict=True):
        one = ridge(X, Y, alpha, positive=True)
        for w, v in zip(coef, one.coef, strict=True):
            off, size = (np.hypot(np.linalg.norm(A @ u), np.sqrt(alpha) * np.linalg.norm(u)) for u in (w - v, v))
            assert off <= (report.error_bound + one.report.error_bound) * 1.01 * size


def test_one_gram_matrix_or_one_copy_of_the_columns_serves_all(monkeypatch):
    calls = []
    for name in ("full_gram", "columns"):
        whole = getattr(fastridge.operators.design.Design, name)

        def counted(self, *given, whole=whole, name=name):
            calls.append(name)
            return whole(self, *given)

        monkeypatch.setattr(fastridge.operators.design.Design, name, counted)
    X = make_X(60, 7, seed=201)
    Y = make_y(X, 202, n_targets=2)
    ridge_path(X, Y, 20, positive=True)
    assert calls == ["full_gram"]
    monkeypatch.setattr(gram, "MAX_GRAM", 0)
    monkeypatch.setattr(columns, "MAX_BLOCK", 0)
    ridge_path(X, Y, 20, positive=True)
    assert calls == ["full_gram", "columns"]


@pytest.mark.parametrize(("n", "p"), [(2000, 300), (200, 1200)])
def test_fewer_rounds_than_one_by_one(n, p):
    rng = np.random.default_rng(203)
    X = sp.random_array((n, p), density=0.05, format="csr", rng=rng)
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    alphas = np.logspace(-2, 2, 30)
    found = ridge_path(X, y, alphas, positive=True)
    assert found.converged
    alone = sum(ridge(X, y, alpha, positive=True).report.n_iter[0] for alpha in alphas)
    assert sum(report.n_iter[0] for report in found.reports) < 0.75 * alone


def test_alphas_by_number_are_those_without_bounds():
    X = make_X(40, 6, seed=204)
    y, d = make_y(X, 205), np.array([1.0, 0.0, 2.0, np.inf, 0.5, 1.0])
    for weights in (None, d):
        found = ridge_path(X, y, 100, positive=True, penalty_weights=weights)
        np.testing.assert_allclose(found.alphas, ridge_path(X, y, 100, penalty_weights=weights).alphas, rtol=1e-12)
        assert found.converged
        assert len(found.reports) == 100
    assert not found.coefs[:, 3].any()


def test_bounds_that_exclude_nothing_leave_other_solvers():
    X = make_X(40, 6, seed=206)
    y = make_y(X, 207)
    assert ridge_path(X, y, 5, bounds=(-np.inf, np.inf)).reports[0].solver == "eigh"
    np.testing.assert_allclose(
        ridge_path(X, y, ALPHAS, bounds=(-1e3, 1e3), tol=1e-10).coefs,
        ridge_path(X, y, ALPHAS, tol=1e-10).coefs,
        rtol=1e-6,
        atol=1e-8,
    )


def test_alpha_zero():
    X = make_X(40, 6, seed=208)
    y = make_y(X, 209)
    found = ridge_path(X, y, [0.0, 1.0], bounds=(-0.2, 0.3))
    check(found, X, y, (-0.2, 0.3))
    assert np.isfinite(found.reports[0].error_bound)
    twice = np.hstack([X, X])
    assert (
        ridge_path(np.abs(twice), np.abs(twice).sum(axis=1) + y, [0.0, 1.0], positive=True).reports[0].status
        is Status.UNCERTIFIED
    )


def test_too_few_rounds_are_reported():
    X = make_X(150, 60, seed=210)
    found = ridge_path(X, make_y(X, 211), [1e-3, 10.0], positive=True, max_iter=1, tol=1e-12)
    assert found.reports[0].status is Status.MAX_ITER
    assert not found.converged


def test_verbose_prints_the_plan(capsys):
    X = make_X(30, 5, seed=212)
    ridge_path(X, make_y(X, 213), 3, positive=True, verbose=True)
    assert "coefficients are bounded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"positive": True, "bounds": (0, 1)}, ValueError, "positive=True and bounds"),
        ({"bounds": (1, 0)}, ValueError, "no number lies within the bounds of feature 0"),
        ({"bounds": (np.zeros(3), 1)}, ValueError, r"lower bounds must be a number or of shape \(7,\)"),
        ({"positive": 1}, TypeError, "positive must be True or False"),
        (
            {"positive": True, "penalty_weights": np.eye(7)},
            ValueError,
            "a penalty matrix does not go with bounds or positive=True",
        ),
        *(({"positive": True, "solver": name}, ValueError, 'use solver="auto"') for name in ("cholesky", "svd", "cg")),
    ],
)
def test_refusals(arguments, error, message):
    X = make_X(60, 7, seed=214)
    with pytest.raises(error, match=message):
        ridge_path(X, make_y(X, 215), 3, **arguments)
