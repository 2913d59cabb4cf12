"""What must not change the answer, and data at the edge: extreme penalties, empty and constant columns, means far from zero."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

from fastridge import Status, ridge

SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")
KINDS = ("C", "F", "csr_array", "csc_array")
TOL = 1e-7

pytestmark = pytest.mark.usefixtures("one_blas_thread")
each_solver = pytest.mark.parametrize("solver", SOLVERS)
each_shape = pytest.mark.parametrize("shape", [(60, 9), (9, 60)], ids=["tall", "wide"])


def problem(shape, seed=41):
    X = make_X(*shape, seed=seed)
    return X, make_y(X, seed + 1)


def within(exact, coef, tol=TOL):
    return exact.error(coef).max() <= tol + exact.rounding.max()


def accurate(solution, exact, tol=1e-6):
    """Whether the answer is as accurate as was asked and as claimed"""
    error, slack = exact.error(solution.coef).max(), exact.rounding.max()
    claims = error <= min(3 * solution.report.error, solution.report.error_bound) + slack
    return solution.report.status is Status.CONVERGED and error <= tol + slack and claims


@each_shape
@each_solver
def test_a_second_copy_of_the_columns_takes_half_of_each_coefficient(solver, shape):
    X, y = problem(shape)
    coef = ridge(np.hstack([X, X]), y, 2.0, solver=solver, tol=TOL).coef
    p = shape[1]
    np.testing.assert_allclose(coef[:p], coef[p:], rtol=1e-5, atol=1e-7 * np.abs(coef).max())
    assert within(Exact(X, y, 1.0), coef[:p] + coef[p:])


@each_shape
@each_solver
def test_a_second_copy_of_the_rows_is_twice_the_weight(solver, shape):
    X, y = problem(shape)
    stacked = ridge(np.vstack([X, X]), np.concatenate([y, y]), 2.0, solver=solver, tol=TOL)
    weighted = ridge(X, y, 2.0, sample_weight=2.0, solver=solver, tol=TOL)
    exact = Exact(X, y, 1.0)
    assert within(exact, stacked.coef)
    assert within(exact, weighted.coef)
    np.testing.assert_allclose([stacked.intercept, weighted.intercept], exact.intercept[0], rtol=1e-5)


@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_weights_are_repetitions(solver, shape, storage):
    X, y = problem(shape)
    times = np.random.default_rng(43).integers(0, 4, len(y))
    exact = Exact(np.repeat(X, times, axis=0), np.repeat(y, times), 0.5)
    solution = ridge(STORAGES[storage](X), y, 0.5, sample_weight=times, solver=solver, tol=TOL)
    assert within(exact, solution.coef)
    np.testing.assert_allclose(solution.intercept, exact.intercept[0], rtol=1e-5)


@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_order_of_rows_and_columns_does_not_matter(solver, shape, storage):
    X, y = problem(shape)
    rng = np.random.default_rng(44)
    rows, columns = rng.permutation(shape[0]), rng.permutation(shape[1])
    solution = ridge(STORAGES[storage](X[rows][:, columns]), y[rows], 0.5, solver=solver, tol=TOL)
    coef = np.empty(shape[1])
    coef[columns] = solution.coef
    assert within(Exact(X, y, 0.5), coef)


@pytest.mark.parametrize("factor", [-3.0, 1e-100, 1e100])
@each_shape
@each_solver
def test_coefficients_scale_with_y(solver, shape, factor):
    X, y = problem(shape)
    solution = ridge(X, factor * y, 0.5, solver=solver, tol=TOL)
    assert solution.report.status is Status.CONVERGED
    assert within(Exact(X, y, 0.5), solution.coef / factor)


@pytest.mark.parametrize("factor", [1e-60, 1e-3, 1e60])
@each_shape
@each_solver
def test_coefficients_scale_against_X_and_the_root_of_the_penalty(solver, shape, factor):
    X, y = problem(shape)
    solution = ridge(X * factor, y, 0.5 * factor**2, solver=solver, tol=TOL)
    assert solution.report.status is Status.CONVERGED
    assert within(Exact(X, y, 0.5), solution.coef * factor)


@pytest.mark.parametrize("factor", [1e-100, 1e-3, 1e100])
@each_shape
@each_solver
def test_weights_scale_against_the_penalty(solver, shape, factor):
    X, y = problem(shape)
    weights = make_weights(len(y), 49, zeros=True)
    solution = ridge(X, y, 0.5 * factor, sample_weight=weights * factor, solver=solver, tol=TOL)
    assert solution.report.status is Status.CONVERGED
    assert within(Exact(X, y, 0.5, weights), solution.coef)


@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_one_sample_with_a_weight(solver, shape, storage):
    X, y = problem(shape)
    weights = np.zeros(len(y))
    weights[3] = 2
    solution = ridge(STORAGES[storage](X), y, sample_weight=weights, solver=solver)
    assert np.abs(solution.coef).max() <= 1e-13
    np.testing.assert_allclose(solution.intercept, y[3], rtol=1e-12)
    assert accurate(
        ridge(STORAGES[storage](X), y, sample_weight=weights, solver=solver, fit_intercept=False),
        Exact(X, y, 1.0, weights, fit_intercept=False),
    )


@pytest.mark.parametrize("storage", KINDS)
@each_solver
def test_columns_of_very_different_scales(solver, storage):
    X, y = problem((80, 8))
    X = X * 10.0 ** np.arange(-4, 4)
    assert accurate(ridge(STORAGES[storage](X), y, 1.0, solver=solver), Exact(X, y, 1.0))


@each_shape
@each_solver
def test_targets_solved_together_are_those_solved_alone(solver, shape):
    X, _ = problem(shape)
    Y, alpha = make_y(X, 45, n_targets=4), np.array([1e-4, 1e4, 1.0, 1.0])
    together = ridge(X, Y, alpha, solver=solver, tol=TOL)
    for target in range(4):
        alone = Exact(X, Y[:, target], alpha[target])
        assert within(alone, together.coef[target])
        assert within(alone, ridge(X, Y[:, target], alpha[target], solver=solver, tol=TOL).coef)


@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_without_an_intercept_centred_data_give_the_same(solver, shape, storage):
    X, y = problem(shape)
    exact = Exact(X, y, 0.5)
    solution = ridge(STORAGES[storage](X - X.mean(axis=0)), y - y.mean(), 0.5, fit_intercept=False, solver=solver, tol=TOL)
    assert within(exact, solution.coef)
    assert solution.intercept == 0.0


@pytest.mark.parametrize("storage", KINDS)
@pytest.mark.parametrize("alpha", 10.0 ** np.arange(-12, 13, 4))
@each_shape
@each_solver
def test_extreme_penalties(solver, shape, alpha, storage):
    X, y = problem(shape)
    X = np.delete(X, shape[1] // 2, axis=1)  # without its empty column and row the data have full rank
    X = np.delete(X, shape[0] // 2, axis=0)
    y = np.delete(y, shape[0] // 2)
    assert accurate(ridge(STORAGES[storage](X), y, alpha, solver=solver), Exact(X, y, alpha))


@pytest.mark.parametrize("alpha", [1e-12, 1e-9])
@each_solver
def test_rank_deficient_data_under_next_to_no_penalty_are_right_or_said_not_to_be(solver, alpha):
    X, y = problem((40, 12))
    X[:, 5] = X[:, 3] + X[:, 4]
    exact = Exact(X, y, alpha)
    try:
        solution = ridge(X, y, alpha, solver=solver)
    except np.linalg.LinAlgError as refusal:
        if solver != "cholesky" or 'solver="svd"' not in str(refusal):
            raise
        return
    error = exact.error(solution.coef).max()
    assert error <= 3 * solution.report.error + exact.rounding.max()
    assert error <= solution.report.error_bound + exact.rounding.max()
    if solver in ("svd", "auto"):
        assert solution.report.status is Status.CONVERGED


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_empty_and_constant_columns_get_no_weight(solver, shape, storage, intercept):
    X, y = problem(shape)
    X[:, 1], X[:, 2] = 0, 7.3
    solution, exact = (
        ridge(STORAGES[storage](X), y, 1e-3, solver=solver, fit_intercept=intercept),
        Exact(X, y, 1e-3, None, intercept),
    )
    assert accurate(solution, exact)
    # Nothing but the penalty weighs the empty column, so that its part of the error is its coefficient times the penalty's root.
    A, w = X - X.mean(axis=0) * intercept, solution.coef
    size = np.sqrt(np.sum((A @ w) ** 2) + 1e-3 * np.sum(w**2))
    assert np.sqrt(1e-3) * abs(w[1]) <= (solution.report.error_bound + exact.rounding.max()) * size
    if intercept:
        assert abs(solution.coef[2]) <= 1e-9  # its mean is rounded, and the penalty small


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("storage", KINDS)
@each_shape
@each_solver
def test_y_zero(solver, shape, storage, intercept):
    X, _ = problem(shape)
    solution = ridge(STORAGES[storage](X), np.zeros((len(X), 2)), solver=solver, fit_intercept=intercept)
    assert not solution.coef.any()
    assert not solution.intercept.any()
    assert solution.report.status is Status.CONVERGED
    assert solution.report.error == solution.report.error_bound == 0


@pytest.mark.parametrize("storage", KINDS)
@pytest.mark.parametrize("value", [1.0, 0.1, -1e9])
@each_shape
@each_solver
def test_constant_y(solver, shape, value, storage):
    X, _ = problem(shape)
    solution = ridge(STORAGES[storage](X), np.full(len(X), value), 1e-3, solver=solver)
    np.testing.assert_allclose(X @ solution.coef + solution.intercept, value, rtol=1e-12)
    assert solution.report.status is Status.CONVERGED


@pytest.mark.parametrize("storage", KINDS)
@each_solver
def test_X_zero(solver, storage):
    y = np.arange(6.0)
    solution = ridge(STORAGES[storage](np.zeros((6, 3))), y, solver=solver)
    assert not solution.coef.any()
    assert solution.intercept == 2.5
    assert solution.report.status is Status.CONVERGED


@each_solver
def test_sparse_without_a_stored_entry(solver):
    for make in (sp.csr_array, sp.csc_array, sp.coo_array):
        solution = ridge(make((5, 3)), np.arange(5.0), solver=solver)
        assert not solution.coef.any()
        assert solution.intercept == 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("storage", KINDS)
@pytest.mark.parametrize(("shape", "share"), [((300, 6), 1.0), ((20, 50), 1.0)], ids=["tall", "wide"])
@each_solver
def test_means_far_from_zero(solver, shape, share, storage, dtype):
    far = 1e8 if dtype == np.float64 else 1e4
    X = (make_X(*shape, seed=50, share=share) / 10 + far * np.resize([1, -1, 0], shape[1])).astype(dtype)
    y = make_y(X - X.mean(axis=0), 51) + 1e8
    exact = Exact(X, y, 1.0)
    solution = ridge(STORAGES[storage](X), y, 1.0, solver=solver, tol=1e-8)
    assert accurate(solution, exact, 1e-8)
    np.testing.assert_allclose(solution.intercept, exact.intercept[0], rtol=1e-7)


@pytest.mark.parametrize("storage", KINDS)
@each_solver
def test_sparse_columns_with_large_entries_and_few_zeros(solver, storage):
    rng = np.random.default_rng(52)
    X = 1e6 + rng.standard_normal((400, 5))
    X[rng.random((400, 5)) < 0.01] = 0
    y = make_y(X / 1e6, 53)
    assert accurate(ridge(STORAGES[storage](X), y, 1.0, solver=solver), Exact(X, y, 1.0))


@pytest.mark.parametrize("storage", KINDS)
@pytest.mark.parametrize("alpha", [1e-6, 1.0])
@each_solver
def test_duplicate_columns_share_their_weight(solver, alpha, storage):
    X, y = problem((60, 6))
    X = np.hstack([X, X[:, :2], X[:, :1]])
    solution = ridge(STORAGES[storage](X), y, alpha, solver=solver)
    assert accurate(solution, Exact(X, y, alpha))


RANKS = {
    "full rank": (50, 6, 6),
    "rank 4": (50, 6, 4),
    "square, rank 7": (10, 10, 7),
    "wide": (6, 50, 6),
    "wide, rank 4": (6, 50, 4),
}


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("storage", KINDS)
@pytest.mark.parametrize("size", RANKS.values(), ids=RANKS)
@pytest.mark.parametrize("solver", ["svd", "auto"])
def test_no_penalty_is_least_squares_of_minimum_norm(solver, size, storage, intercept):
    n, p, rank = size
    rng = np.random.default_rng(54)
    X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)) * (1 + np.arange(p))
    y = rng.standard_normal((n, 2)) + 4
    solution = ridge(STORAGES[storage](X), y, 0.0, solver=solver, fit_intercept=intercept)
    assert solution.report.solver == "svd"
    assert solution.report.status is Status.UNCERTIFIED
    assert solution.report.error_bound == np.inf
    A, target = (X - X.mean(axis=0), y - y.mean(axis=0)) if intercept else (X, y)
    wanted = np.linalg.lstsq(A, target, rcond=1e-12)[0].T
    np.testing.assert_allclose(solution.coef, wanted, rtol=1e-8, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("solver", ["cholesky", "cg", "cd"])
def test_no_penalty_is_never_certified(solver):
    X = make_X(50, 3, seed=55)
    y = make_y(X, 56)
    solution = ridge(X, y, 0.0, solver=solver)
    assert solution.report.status is Status.UNCERTIFIED
    assert solution.report.error_bound == np.inf
    assert within(Exact(X, y, 0.0), solution.coef, 1e-6)


def test_cholesky_without_a_factor_gives_the_answer_of_minimum_norm_and_says_so():
    X = np.ones((5, 2)) * np.arange(5)[:, None]
    solution = ridge(X, np.arange(5.0), 0.0, solver="cholesky")
    np.testing.assert_allclose(solution.coef, [0.5, 0.5], rtol=1e-12)
    assert solution.report.solver == "svd"
    assert "for cholesky the matrix was not positive definite" in solution.report.reason


@pytest.mark.parametrize(("storage", "dtype"), list(product(KINDS, (np.float64, np.float32))))
@each_solver
def test_one_hot_columns_beside_unscaled_numbers_by_default(solver, storage, dtype):
    rng = np.random.default_rng(57)
    n, levels = 4000, 150
    level = rng.integers(0, levels, n)
    numbers = np.column_stack([3e4 * rng.standard_normal(n), 1e4 * rng.exponential(size=n)])
    X = np.hstack([np.eye(levels)[level], numbers]).astype(dtype)
    y = rng.standard_normal(levels)[level] + numbers @ [1e-4, -2e-4] + 0.5 * rng.standard_normal(n)
    exact = Exact(X, y, 1.0)
    solution = ridge(STORAGES[storage](X), y, solver=solver)
    assert accurate(solution, exact)
    rest = y - X @ solution.coef - solution.intercept
    r2 = 1 - rest @ rest / ((y - y.mean()) @ (y - y.mean()))
    assert r2 > 0.9
    assert abs(r2 - exact.r2(X, y)) < 1e-9
