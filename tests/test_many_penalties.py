"""Targets with penalties of their own: one eigendecomposition for all, certified for each, in bounded memory."""

import gc
import tracemalloc

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

import fastridge
from fastridge import Ridge, explain, ridge
from fastridge.formulation import make_problem
from fastridge.planning import planner
from fastridge.problem import CHUNK_BYTES
from fastridge.solution import Settings
from fastridge.solvers import eigen

pytestmark = pytest.mark.usefixtures("one_blas_thread")


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), [(120, 30), (30, 30), (20, 90), (1, 5), (40, 1)])
@pytest.mark.parametrize("chunks", [False, True])
def test_every_target_is_within_tol_and_within_what_is_claimed(monkeypatch, chunks, n, p, intercept, dtype, storage):
    if chunks:
        monkeypatch.setattr(fastridge.problem, "CHUNK_BYTES", 8 * 7 * 8 * max(n, p))
    k = 40
    X = make_X(n, p, seed=170, dtype=dtype)
    Y, weights = make_y(X, 171, n_targets=k), make_weights(n, 172)
    alpha = np.logspace(-5, 5, k)
    solution = ridge(STORAGES[storage](X), Y, alpha, sample_weight=weights, fit_intercept=intercept)
    exact = Exact(X, Y, alpha, weights, intercept)
    error, report = exact.error(solution.coef), solution.report
    assert report.solver == "eigh"
    assert report.converged
    assert (error <= 1e-6 + exact.rounding).all()
    assert error.max() <= report.error_bound + exact.rounding.max()
    assert error.max() <= 3 * report.error + exact.rounding.max()
    assert report.n_iter.shape == (k,)


def test_the_planner_weighs_one_decomposition_against_many_factors():
    X, Y = np.eye(400, 60), np.zeros((400, 100))
    assert explain(X, Y, alpha=np.arange(1.0, 101.0)).solver == "eigh"
    assert explain(X, Y, alpha=1.0).solver == "cholesky"
    assert explain(X, Y, alpha=np.arange(1.0, 101.0), solver="cholesky").solver == "cholesky"
    rng = np.random.default_rng(173)
    Y = rng.standard_normal((400, 3))
    assert ridge(X, Y, [1.0, 2.0, 3.0], solver="cholesky").report.solver == "cholesky"
    assert Ridge([1.0, 2.0, 3.0]).fit(X, Y).solver_ in ("eigh", "cholesky", "cg")
    with pytest.raises(ValueError, match="solver must be one of"):
        ridge(X, Y, solver="eigh")


def test_a_singular_matrix_with_next_to_no_penalty():
    rng = np.random.default_rng(174)
    X = rng.standard_normal((80, 10))
    X = np.hstack([X, X[:, :5]])
    Y, alpha = rng.standard_normal((80, 30)), np.logspace(-14, 1, 30)
    solution, exact = ridge(X, Y, alpha), Exact(X, Y, alpha)
    error = exact.error(solution.coef)
    assert (error <= 1e-6 + exact.rounding).all()
    assert error.max() <= solution.report.error_bound + exact.rounding.max()


@pytest.mark.parametrize("solver", ["eigh", "cholesky", "cg"])
@pytest.mark.parametrize(("n", "p"), [(2000, 100), (100, 2000)])
def test_thousands_of_targets_take_bounded_memory(monkeypatch, n, p, solver):
    monkeypatch.setattr(fastridge.problem, "CHUNK_BYTES", CHUNK_BYTES // 64)
    rng = np.random.default_rng(175)
    k = 3000
    X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, k))
    alpha = np.logspace(-2, 4, k) if solver == "eigh" else 10.0
    ridge(X[:, :5], Y[:, :3], alpha if solver != "eigh" else alpha[:3])
    gc.collect()
    tracemalloc.start()
    try:
        solution = ridge(X, Y, alpha, solver="auto" if solver == "eigh" else solver)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert solution.report.solver == solver
    assert solution.report.converged
    # y centred and its temporaries; the coefficients in float64, rounded, their difference; b; the matrices; the chunk.
    held = 4 * Y.nbytes + 7 * solution.coef.nbytes
    assert peak <= held + 12 * X.nbytes + 4 * CHUNK_BYTES // 64 + 2**22


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize(("n", "p"), [(300, 250), (250, 300)])
def test_targets_in_parts_are_those_solved_at_once(monkeypatch, n, p, solver):
    rng = np.random.default_rng(176)
    X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, 17))
    start = rng.standard_normal((min(n, p), 17))
    for alpha in (np.full(17, 2.0), np.logspace(-1, 2, 17)):
        problem = make_problem(X, Y, alpha, None, True, 2)
        solve = planner.SOLVERS[solver]
        for settings in (Settings(1e-8, None), Settings(1e-8, None, start=start)):
            whole = solve(problem, settings)
            with monkeypatch.context() as patch:
                patch.setattr(fastridge.problem, "CHUNK_BYTES", 5 * 8 * 7 * max(n, p))
                assert len(list(problem.chunks())) > 2
                parts = solve(problem, settings)
            assert (parts.error <= 1e-8).all()
            assert parts.n_iter.shape == (17,)
            np.testing.assert_allclose(parts.w, whole.w, rtol=0, atol=1e-7 * np.abs(whole.w).max())
            if solver == "cg":
                np.testing.assert_allclose(parts.x, whole.x, rtol=0, atol=1e-7 * np.abs(whole.x).max())


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
def test_the_doubt_about_eigenvalues_is_in_the_bound(shape):
    """Every eigenvalue is off by as much as is doubted, to the side that makes the error look smaller"""
    wide = shape[0] < shape[1]
    u, v = (np.linalg.qr(np.random.default_rng(174).standard_normal((m, 2)))[0] for m in shape)
    X, y = u * np.sqrt([0.5, 5.0]) @ v.T, u[:, 0].copy()
    problem = make_problem(X, y, np.ones(1), None, False, 1)
    spectrum = eigen.Spectrum(problem, problem.side.gram())
    spectrum.doubt = 0.3
    spectrum.s = spectrum.s + (-0.3 if wide else 0.3)
    answer = spectrum.solve(problem, Settings(10.0, None))
    assert answer.n_iter[0] == 0
    error = Exact(X, y, 1.0, fit_intercept=False).error(answer.w.T)[0]
    assert 0.1 < error <= answer.error_bound[0] * (1 + 1e-9)
