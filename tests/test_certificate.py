"""Converged means converged: what solvers claim about their error where the spectrum is hard on estimates."""

from functools import cache

import numpy as np
import pytest
from helpers import Exact

from fastridge import Status, ridge

pytestmark = pytest.mark.usefixtures("one_blas_thread")

P = 120
SPECTRA = {
    "geometric": lambda rng: 10 ** np.linspace(0, -4, P),
    "stairs": lambda rng: 10.0 ** -(6 * np.arange(P) // P),
    "some large": lambda rng: np.where(np.arange(P) < 10, 10 ** rng.uniform(0, 4, P), 1),
    "few small": lambda rng: np.where(np.arange(P) < 5, 10 ** rng.uniform(-4, -1, P), 1),
    "power": lambda rng: 1 / np.arange(1, P + 1),
    "random": lambda rng: 10 ** rng.uniform(-4, 0, P),
}


def check(solution, exact, tol):
    """Compare an answer with what the report says of it: as accurate as was asked, or said not to be"""
    error, slack, report = exact.error(solution.coef)[0], exact.rounding[0], solution.report
    assert error <= report.error_bound + slack
    assert error <= 3 * report.error + slack
    if report.status is Status.CONVERGED:
        assert report.error <= tol
        assert error <= tol + slack
    else:
        assert report.solver in ("cg", "cd")  # the direct ones get there
        assert report.error > tol


@cache
def spectral_case(kind, shape, alpha):
    rng = np.random.default_rng(121)
    n, p = (160, P) if shape == "tall" else (P, 160)
    u, v = (np.linalg.qr(rng.standard_normal((m, P)))[0] for m in (n, p))
    X = 30 * u * SPECTRA[kind](rng) @ v.T
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    return X, y, Exact(X, y, alpha)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("shape", ["tall", "wide"])
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg", "cd"])
def test_spectra(solver, kind, shape, alpha, tol):
    X, y, exact = spectral_case(kind, shape, alpha)
    check(ridge(X, y, alpha, solver=solver, tol=tol), exact, tol)


@cache
def dummies(seed):
    """Two groups of dummies whose levels become ever rarer, and a number: CG meets the rare ones late, a few at a time"""
    rng = np.random.default_rng(seed)
    n, columns = 500, [rng.exponential(size=(500, 1))]
    for n_levels in rng.integers(10, 120, 3):
        share = 1.0 / np.arange(1, n_levels + 1) ** rng.choice([1.1, 2.0])
        columns.append(np.eye(n_levels)[rng.choice(n_levels, n, p=share / share.sum())])
    X = np.hstack(columns)
    y = X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(n)
    alpha = rng.choice([1e-2, 0.1, 1.0])
    return X, y, alpha, Exact(X, y, alpha)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("solver", ["cg", "cd"])
def test_dummies_of_rare_levels(solver, seed, tol):
    X, y, alpha, exact = dummies(seed)
    check(ridge(X, y, alpha, solver=solver, tol=tol), exact, tol)


@cache
def factors(rank, alpha):
    """A few strong factors and faint noise: rounding makes CG meet the factors again, in steps that gain nothing"""
    rng = np.random.default_rng(123 + rank)
    n, p = 400, 150
    X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)) + 1e-4 * rng.standard_normal((n, p))
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    return X, y, Exact(X, y, alpha)


@pytest.mark.parametrize("alpha", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("rank", [2, 4, 8, 16])
@pytest.mark.parametrize("solver", ["cg", "cd"])
def test_strong_factors_and_faint_noise(solver, rank, alpha):
    X, y, exact = factors(rank, alpha)
    for tol in (1e-3, 1e-4, 1e-5, 1e-6):
        check(ridge(X, y, alpha, solver=solver, tol=tol), exact, tol)


@pytest.mark.parametrize("alpha", [1e-3, 0.1])
@pytest.mark.parametrize("rank", [2, 4, 8, 16])
def test_the_estimate_is_right_wherever_cg_is_stopped(rank, alpha):
    X, y, exact = factors(rank, alpha)
    for max_iter in range(4, 40, 3):
        check(ridge(X, y, alpha, solver="cg", tol=1e-9, max_iter=max_iter), exact, 1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1e-6])
@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg", "cd"])
def test_columns_that_are_nearly_the_same(solver, scale):
    rng = np.random.default_rng(122)
    X = rng.standard_normal((300, 8))
    X = np.hstack([X, X[:, :4] + scale * rng.standard_normal((300, 4))])
    y = X @ rng.standard_normal(12) + 10 * (X[:, 8] - X[:, 0]) / scale + rng.standard_normal(300)
    for alpha in (1e-8, 1e-4, 1.0):
        check(ridge(X, y, alpha, solver=solver), Exact(X, y, alpha), 1e-6)


@pytest.mark.parametrize("max_iter", [1, 2, 3, 5, 10, 20, 40])
@pytest.mark.parametrize("solver", ["cg", "cd"])
def test_the_bound_holds_wherever_a_solver_is_stopped(solver, max_iter):
    for kind in SPECTRA:
        for shape in ("tall", "wide"):
            X, y, exact = spectral_case(kind, shape, 1e-2)
            solution = ridge(X, y, 1e-2, solver=solver, tol=1e-10, max_iter=max_iter)
            assert exact.error(solution.coef)[0] <= solution.report.error_bound + exact.rounding[0]
            assert solution.report.status is not Status.CONVERGED or solution.report.error <= 1e-10
            if solver == "cg":
                assert solution.report.n_iter[0] <= max_iter
