"""Numbers that float64 finds hard: means far from zero, sizes whose squares it does not hold, columns of very different size.

The truth is computed in fractions, so that nothing is left to rounding.
"""

import json
import warnings
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights
from test_real_data import FOLDER
from truth import InFractions, fractions, solve_fractions

from fastridge import Ridge, Status, ridge, ridge_path
from fastridge.formulation import make_problem, plain_form
from fastridge.least_squares import plainly_failed
from fastridge.operators.design import centred_design
from fastridge.validation import check_X

pytestmark = pytest.mark.usefixtures("one_blas_thread")
EPS = float(np.finfo(np.float64).eps)
SOLVERS = ("cholesky", "svd", "cg", "cd")


def judge(report, truth, coef, tol):
    """What the report claims is so"""
    error = truth.error(coef)
    assert error <= report.error_bound * (1 + 1e-6)
    if report.status is Status.CONVERGED:
        assert error <= tol
    return error


# Means far from zero


@cache
def far_case(shape, power, weighted):
    rng = np.random.default_rng(501)
    n, p = shape
    weights = make_weights(n, 502, zeros=True) if weighted else None
    X = rng.standard_normal(shape) + 10.0**power * rng.choice([-1.0, 1.0, 0.3], p)
    y = (X - X[0]) @ rng.standard_normal(p) + 0.1 * rng.standard_normal(n) + 10.0**power
    return X, y, weights, InFractions(X, y, 1e-6, weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("power", [3, 6, 8, 10, 12])
@pytest.mark.parametrize("shape", [(30, 6), (6, 9)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_means_far_from_zero_cost_no_digits(solver, shape, power, storage, weighted):
    X, y, weights, truth = far_case(shape, power, weighted)
    tol = 1e-8
    solution = ridge(STORAGES[storage](X), y, 1e-6, sample_weight=weights, solver=solver, tol=tol)
    error = judge(solution.report, truth, solution.coef, tol)
    assert error <= tol
    if solver in ("cholesky", "svd"):
        assert solution.report.converged
    best = truth.intercept(solution.coef)
    cancelled = float(abs(truth.y_mean) + abs(truth.x_mean) @ abs(fractions(solution.coef)))
    assert abs(Fraction(float(solution.intercept)) - best) <= 2 * EPS * abs(best) + 100 * EPS**2 * cancelled


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("storage", ["C", "csr_array"])
@pytest.mark.parametrize("power", [8, 12])
def test_an_intercept_that_the_means_all_but_cancel_in_has_its_digits(power, storage, weighted):
    X, _, weights, _ = far_case((30, 6), power, weighted)
    y = X @ np.arange(1.0, 7.0)
    truth = InFractions(X, y, 1e-6, weights)
    solution = ridge(STORAGES[storage](X), y, 1e-6, sample_weight=weights)
    best = truth.intercept(solution.coef)
    cancelled = float(abs(truth.y_mean) + abs(truth.x_mean) @ abs(fractions(solution.coef)))
    assert abs(Fraction(float(solution.intercept)) - best) <= 2 * EPS * abs(best) + 100 * EPS**2 * cancelled


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize("power", [0, 3, 8, 12])
def test_the_error_of_a_mean_is_known(power, storage, weighted):
    X, _, weights, _ = far_case((30, 6), power, weighted)
    X = X * [1.0, 1.0, 0.0, 1.0, 1e3, 1e-3]  # one is empty
    X[7:9, 3] = 0.0  # one is not full
    s = fractions(np.ones(30) if weights is None else weights)
    mean = s @ fractions(X) / s.sum()
    made = centred_design(check_X(STORAGES[storage](X)), weights, True, 1)
    both = fractions(made.mean[0]) + fractions(made.mean[1])
    root = float(s.sum()) ** 0.5
    # What the operator subtracts is what products with ones, weighted, leave.
    left = np.abs(made.design.rmatvec(np.sqrt(weights if weights is not None else np.ones(30))[:, None])[:, 0]) / root
    for scale in (None, np.array([1.0, 2.0, 3.0, 4.0, 0.0, 1e-6])):
        design = made.design if scale is None else made.design.with_columns_scaled(scale)
        size = np.ones(6) if scale is None else np.sqrt(scale)
        assert (size * root * (abs(both - mean)).astype(float) <= design.mean_error).all()
        assert (size * left <= design.mean_error * (1 + 1e-9) + 1e-13 * np.sqrt(design.sq_read_norms)).all()
        assert (design.mean_error <= 40 * EPS * np.sqrt(30 * design.sq_raw_norms)).all()
        assert (design.sq_norms <= design.sq_read_norms * (1 + 1e-12)).all()
        assert (design.sq_read_norms <= design.sq_raw_norms * (1 + 1e-12)).all()
        raw = size**2 * (s @ (fractions(X) * fractions(X))).astype(float)
        np.testing.assert_allclose(design.sq_raw_norms, raw, rtol=1e-9)
    plain = centred_design(check_X(STORAGES[storage](X)), weights, False, 1).design
    assert plain.mean_error is None
    np.testing.assert_array_equal(plain.sq_read_norms, plain.sq_norms)


@pytest.mark.parametrize("storage", ["C", "csr_array"])
@pytest.mark.parametrize("shape", [(40, 6), (8, 12)])
def test_the_operator_about_true_means(storage, shape):
    """Products, Gram matrix, blocks and norms of a design whose means were rounded"""
    rng = np.random.default_rng(503)
    X = rng.standard_normal(shape) + 1e12
    weights = make_weights(shape[0], 504)
    problem = make_problem(check_X(STORAGES[storage](X)), rng.standard_normal(shape[0]), np.ones(1), weights, True, 1)
    truth = InFractions(X, rng.standard_normal(shape[0]), 1.0, weights)
    A = np.sqrt(weights)[:, None] * truth.A.astype(float)
    for design, wanted in ((plain_form(problem).problem.design, A), (plain_form(problem).problem.design.T, A.T)):
        v, u = rng.standard_normal((wanted.shape[1], 2)), rng.standard_normal((wanted.shape[0], 2))
        close = {"rtol": 1e-11, "atol": 1e-11}
        np.testing.assert_allclose(design.matvec(v), wanted @ v, **close)
        np.testing.assert_allclose(design.rmatvec(u), wanted.T @ u, **close)
        np.testing.assert_allclose(design.normal(v), wanted.T @ (wanted @ v), **close)
        np.testing.assert_allclose(design.sq_norms, (wanted**2).sum(axis=0), **close)
        np.testing.assert_allclose(np.tril(design.gram()), np.tril(wanted.T @ wanted), **close)
        np.testing.assert_allclose(np.vstack([block.copy() for _, _, block in design.blocks()]), wanted, **close)
        for other in (design.columns(), design.with_one_pass()):
            np.testing.assert_allclose(other.matvec(v), wanted @ v, **close)
            np.testing.assert_allclose(other.normal(v), wanted.T @ (wanted @ v), **close)
    scaled = plain_form(problem).problem.design.with_columns_scaled(np.arange(shape[1]) * 1.0)
    np.testing.assert_allclose(scaled.matvec(np.eye(shape[1])), A * np.sqrt(np.arange(shape[1])), **close)


@pytest.mark.parametrize("kind", ["vector", "with a zero", "matrix"])
@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg"])
def test_penalty_weights_and_means_far_from_zero(solver, kind):
    X, y, _, _ = far_case((30, 6), 11, False)
    d = np.array([1.0, 2.0, 0.5, 3.0, 0.0 if kind == "with a zero" else 1.0, 1.0])
    truth = InFractions(X, y, 1e-3, d=d)
    solution = ridge(X, y, 1e-3, penalty_weights=np.diag(d) if kind == "matrix" else d, solver=solver, tol=1e-8)
    assert judge(solution.report, truth, solution.coef, 1e-8) <= 1e-8


def test_a_constant_column_and_a_constant_target_stay_constant():
    rng = np.random.default_rng(505)
    for value in (0.1, 1e12 / 3, -7e-200):
        for storage in ("C", "F", "csr_array", "csc_array"):
            X = np.column_stack([rng.standard_normal(30), np.full(30, value)])
            weights = make_weights(30, 506)
            for s in (None, weights):
                solution = ridge(STORAGES[storage](X), rng.standard_normal(30), 0.0, sample_weight=s)
                assert solution.coef[1] == 0
                constant = ridge(STORAGES[storage](X), np.full(30, value), 1e-3, sample_weight=s)
                assert (constant.coef == 0).all()
                assert constant.intercept == value


# Features without a penalty


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("storage", ["C", "csr_array"])
@pytest.mark.parametrize("apart", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg", "path"])
def test_what_unpenalised_features_all_but_span(solver, apart, storage, intercept):
    """A penalised feature beside an unpenalised one, and two unpenalised ones, that hardly differ"""
    for seed in range(3):
        rng = np.random.default_rng(508 + seed)
        X = rng.standard_normal((20, 5)) * 10.0 ** rng.uniform(-2, 2, 5)
        X[:, 1] = X[:, 0] * (1 + apart * rng.standard_normal(20))
        X[:, 3] = X[:, 2] * (1 + apart * rng.standard_normal(20))
        y = X @ rng.standard_normal(5) + rng.standard_normal(20)
        d = np.array([0.0, 1.0, 0.0, 0.0, 1.0])
        truth = InFractions(X, y, 1e-6, intercept=intercept, d=d)
        options = {"penalty_weights": d, "fit_intercept": intercept, "tol": 1e-7}
        if solver == "path":
            path = ridge_path(STORAGES[storage](X), y, [1e-6], solver="cg", **options)
            judge(path.reports[0], truth, path.coefs[0], 1e-7)
        else:
            solution = ridge(STORAGES[storage](X), y, 1e-6, solver=solver, **options)
            judge(solution.report, truth, solution.coef, 1e-7)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array"])
def test_dummies_without_a_penalty_depend_exactly(storage, intercept):
    rng = np.random.default_rng(509)
    groups, others = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    numbers = rng.standard_normal((60, 2))
    X = np.column_stack([numbers, np.eye(4)[groups], np.eye(3)[others], 3 * np.eye(3)[others][:, 0], np.zeros(60)])
    y, d = rng.standard_normal(60) + groups, np.array([1.0] * 2 + [0.0] * 9)
    solution = ridge(STORAGES[storage](X), y, 0.1, penalty_weights=d, fit_intercept=intercept, tol=1e-10)
    assert solution.report.converged
    truth = InFractions(X, y, 0.1, intercept=intercept, d=d)
    assert judge(solution.report, truth, solution.coef, 1e-10) <= 1e-10
    # All but dependent: what the last digit of a column would fit is not claimed.
    X[0, 5] = np.nextafter(1.0, 2.0) if X[0, 5] else 2.0**-52
    assert not ridge(STORAGES[storage](X), y, 0.1, penalty_weights=d, fit_intercept=intercept, tol=1e-10).report.converged


# Sizes whose squares float64 does not hold


@cache
def small_case(shape, seed=511):
    rng = np.random.default_rng(seed)
    n, p = shape
    X = rng.standard_normal(shape)
    return X, X @ rng.standard_normal(p) + rng.standard_normal(n)


SIZES = [  # X, y, alpha, sample weights, penalty weights, as powers of two
    (0, -570, 0, 0, 0),
    (0, 530, 0, 0, 0),
    (-570, 0, 0, 0, 0),
    (-570, 0, -1070, 0, 0),
    (530, 0, 0, 0, 0),
    (530, 530, 1000, 0, 0),
    (-300, 600, -600, 0, 0),
    (0, 0, 1000, 0, 0),
    (0, 0, -1000, 0, 0),
    (0, 0, 900, 950, 0),
    (0, 0, -900, -950, 0),
    (200, 0, 900, 500, 0),
    (0, 0, 900, 0, -900),
    (0, 0, -900, 0, 900),
    (600, 0, 500, 0, 700),
    (-333, 333, 333, -333, -333),
]


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("shape", [(12, 4), (4, 6)])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_any_size_is_solved_like_any_other(sizes, solver, shape, dependent):
    X, y = small_case(shape)
    if dependent:
        X = np.column_stack([X, X[:, :1]])
    weights, d = make_weights(len(y), 512), 1.0 + np.arange(X.shape[1]) % 3
    x_size, y_size, alpha_size, s_size, d_size = sizes
    X, y, alpha = np.ldexp(X, x_size), np.ldexp(y, y_size), float(np.ldexp(0.7, alpha_size))
    weights = np.ldexp(weights, s_size) if s_size else None
    d = np.ldexp(d, d_size) if d_size else None
    truth = InFractions(X, y, alpha, weights, d=d)
    try:
        solution = ridge(X, y, alpha, sample_weight=weights, penalty_weights=d, solver=solver)
    except np.linalg.LinAlgError:
        assert solver == "cholesky"
        # Centred rows depend on one another, and where they are few the penalty alone is the pivot of a direction.
        beside_data = 0.7 * 2.0 ** (alpha_size + d_size - 2 * x_size - s_size)
        assert dependent or (shape[0] < shape[1] and beside_data < shape[1] * EPS)
        return
    error = judge(solution.report, truth, solution.coef, 1e-6)
    assert solution.report.error_bound > 0
    assert error <= 1e-6
    best = truth.intercept(solution.coef)
    assert abs(Fraction(float(solution.intercept)) - best) <= 10 * EPS * max(abs(v) for v in fractions(y))


@pytest.mark.parametrize("alpha", [1e80, 1e100, 1e200, 1e300])
@pytest.mark.parametrize("solver", ["cholesky", "svd", "cg"])
def test_a_penalty_that_outweighs_the_data_leaves_unpenalised_features_alone(solver, alpha):
    X, y = small_case((12, 4))
    d = np.array([1.0, 0.0, 2.0, 1.0])
    truth = InFractions(X, y, alpha, d=d)
    solution = ridge(X, y, alpha, penalty_weights=d, solver=solver)
    assert judge(solution.report, truth, solution.coef, 1e-6) <= 1e-6
    np.testing.assert_allclose(solution.coef, truth.w.astype(float), rtol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_powers_of_two_do_not_change_a_bit(solver):
    X, y = small_case((40, 6))
    for s in (None, make_weights(40, 514), make_weights(40, 514) / 2):  # the power of the largest is even, or odd
        plain = ridge(X, y, 0.25, sample_weight=s, solver=solver)
        for x_size, y_size, s_size in ((500, -400, 0), (0, 600, 0), (-300, 500, -300), (3, 2, 800), (0, 0, -900)):
            weights = None if s is None else np.ldexp(s, s_size)
            alpha = float(np.ldexp(0.25, 2 * x_size + (0 if s is None else s_size)))
            other = ridge(np.ldexp(X, x_size), np.ldexp(y, y_size), alpha, sample_weight=weights, solver=solver)
            np.testing.assert_array_equal(np.ldexp(other.coef, x_size - y_size), plain.coef)
            assert other.report.error_bound == plain.report.error_bound


def test_targets_of_very_different_size_and_empty_ones():
    X, y = small_case((40, 6))
    sizes = np.array([-600, 0, 500, 0])
    Y = np.ldexp(np.repeat(y[:, None], 4, axis=1), sizes)
    Y[:, 3] = 0.0
    for solver in SOLVERS:
        solution = ridge(X, Y, 0.7, solver=solver)
        assert solution.report.converged
        expected = ridge(X, y, 0.7, solver=solver).coef
        for i in range(3):
            np.testing.assert_allclose(np.ldexp(solution.coef[i], -sizes[i]), expected, rtol=1e-6, atol=1e-6)
        assert not solution.coef[3].any()


def test_sizes_of_sparse_data_and_of_rows_without_weight():
    X, y = small_case((40, 6))
    X[np.abs(X) < 0.5] = 0
    weights = make_weights(40, 513)
    weights[3] = 0
    truth = InFractions(X, y, 0.5, weights)
    X, y = np.ldexp(X, 520), y.copy()
    X[3], y[3] = 1e300, 1e300  # of weight zero
    alpha = float(np.ldexp(0.5, 1000))
    truth = InFractions(np.delete(X, 3, 0), np.delete(y, 3), alpha, np.delete(weights, 3))
    for storage in ("C", "F", "csr_array", "csc_array int64"):
        data = STORAGES[storage](X)
        solution = ridge(data, y, alpha, sample_weight=weights)
        assert judge(solution.report, truth, solution.coef, 1e-6) <= 1e-6
        size = (data.data if sp.issparse(data) else data).nbytes
        assert solution.report.extra_bytes >= size  # a copy, and it is said


@pytest.mark.parametrize("solver", ["auto", "cg"])
@pytest.mark.parametrize(
    ("x_size", "alphas"), [(-570, [1.0, 1e-300]), (0, [1e300, 1e-3, 2e300]), (520, [1e303, 1e306]), (400, [1e240])]
)
def test_paths_of_any_size(x_size, alphas, solver):
    X, y = small_case((30, 5))
    X = np.ldexp(X, x_size)
    path = ridge_path(X, y, alphas, solver=solver)
    np.testing.assert_array_equal(path.alphas, alphas)
    for alpha, coef, intercept, report in zip(alphas, path.coefs, path.intercepts, path.reports, strict=True):
        truth = InFractions(X, y, alpha)
        assert judge(report, truth, coef, 1e-6) <= 1e-6
        np.testing.assert_allclose(intercept, float(truth.intercept(coef)), rtol=1e-12)
    if abs(x_size) > 500:
        with pytest.raises(OverflowError, match="no float64 numbers"):
            ridge_path(X, y)
    else:
        chosen = ridge_path(X, y, 5)
        np.testing.assert_allclose(chosen.alphas, np.ldexp(ridge_path(np.ldexp(X, -x_size), y, 5).alphas, 2 * x_size))


@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
@pytest.mark.parametrize("sizes", [(-560, 0, 0), (0, -560, 0), (520, 0, 1020), (0, 530, 0), (0, 0, 990)], ids=str)
def test_bounds_of_any_size(sizes, shape):
    """The coefficients of a problem multiplied by powers of two are those of the problem, multiplied"""
    X, y = small_case(shape)
    x_size, y_size, alpha_size = sizes
    alpha, size = float(np.ldexp(0.3, alpha_size)), y_size - x_size
    own = float(np.ldexp(0.3, alpha_size - 2 * x_size)) if alpha_size - 2 * x_size < 1000 else None
    if own is None:  # alpha decides alone
        w = (X - X.mean(axis=0)).T @ (y - y.mean())
        shift = y_size + x_size - alpha_size
        lower, upper = np.full(len(w), -np.abs(w).max() / 0.6), np.full(len(w), np.abs(w).max() / 0.6)
        expected = np.ldexp(np.clip(w / 0.3, lower, upper), shift)
        lower, upper = np.ldexp(lower, shift), np.ldexp(upper, shift)
    else:
        free = ridge(X, y, own).coef
        lower, upper = np.full(len(free), -np.abs(free).max() / 2), np.full(len(free), np.abs(free).max() / 2)
        expected = np.ldexp(ridge(X, y, own, bounds=(lower, upper), tol=1e-9).coef, size)
        lower, upper = np.ldexp(lower, size), np.ldexp(upper, size)
    X, y = np.ldexp(X, x_size), np.ldexp(y, y_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = ridge(X, y, alpha, bounds=(lower, upper), tol=1e-9)
    assert solution.report.converged
    assert (solution.coef >= lower).all()
    assert (solution.coef <= upper).all()
    np.testing.assert_allclose(solution.coef, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_bounds_far_from_what_the_data_say():
    X, y = small_case((30, 5))
    solution = ridge(X, np.ldexp(y, -600), 1.0, bounds=(1e-10, 1.0))
    assert solution.report.converged
    assert (solution.coef == 1e-10).all()
    solution = ridge(X, y, 1.0, bounds=(1e200, np.inf))
    assert (solution.coef >= 1e200).all()
    Y = np.column_stack([y, np.ldexp(y, -900)])
    with pytest.raises(ValueError, match="cannot be fitted together"):
        ridge(X, Y, 1.0, positive=True)
    with pytest.raises(ValueError, match="cannot be fitted together"):
        ridge(X, Y[:, [0, 0]], [1.0, 1e300], positive=True)


def test_warm_starts_are_in_the_units_of_the_user():
    X, y = small_case((60, 12))
    for size in (0, -600, 500):
        for bounds in (None, (-np.ldexp(0.5, size), np.ldexp(0.5, size))):
            model = Ridge(0.5, solver="cd" if bounds else "cg", warm_start=True, bounds=bounds, tol=1e-8).fit(
                X, np.ldexp(y, size)
            )
            first = model.n_iter_[0]
            model.fit(X, np.ldexp(y, size))
            assert model.n_iter_[0] < first


def test_coefficients_that_float64_does_not_hold_are_said():
    X, y = small_case((30, 5))
    with pytest.raises(OverflowError, match="coefficients overflow float64"):
        ridge(X * 1e-200, y * 1e200, 0.0)
    with pytest.raises(OverflowError, match="coefficients overflow float32"):
        Ridge(alpha=1e-30).fit((X * 1e-20).astype(np.float32), y * 1e30)
    for solver in SOLVERS:
        solution = ridge(X * 1e200, y * 1e-200, 0.5, solver=solver)
        assert not solution.report.converged
        assert not solution.coef.any()
    path = ridge_path(X * 1e200, y * 1e-200, [1e300])
    assert not path.converged


# Columns of very different size


@pytest.mark.parametrize("spread", [3, 30, 100])
@pytest.mark.parametrize("alpha", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("solver", ["svd", "auto"])
def test_columns_of_any_size_are_right_or_said_wrong(solver, alpha, spread):
    for seed in range(5):
        rng = np.random.default_rng(520 + seed)
        X = rng.standard_normal((20, 6)) * 10.0 ** rng.uniform(-spread, spread, 6)
        y = rng.standard_normal(20)
        d = rng.choice([1e-12, 1.0, 1e12], 6) if seed % 2 else None
        solution = ridge(X, y, alpha, penalty_weights=d, solver=solver)
        truth = InFractions(X, y, alpha, d=d)
        assert judge(solution.report, truth, solution.coef, 1e-6) <= 1e-6


@pytest.mark.parametrize("spread", [0, 3, 12])
@pytest.mark.parametrize(("n", "p", "rank"), [(40, 8, 5), (40, 8, 8), (8, 30, 4), (8, 30, 8), (20, 20, 12)])
def test_svd_of_least_squares_has_minimum_norm_in_the_units_given(n, p, rank, spread):
    rng = np.random.default_rng(530)
    left, right = np.rint(8 * rng.standard_normal((n, rank))), np.rint(8 * rng.standard_normal((rank, p)))
    right = right * 2.0 ** np.rint(rng.uniform(-spread, spread, p))
    y = rng.standard_normal(n)
    B, C = fractions(left), fractions(right)
    w = C.T @ solve_fractions(C @ C.T, solve_fractions(B.T @ B, B.T @ fractions(y)))  # of full rank both
    solution = ridge(left @ right, y, 0.0, solver="svd", fit_intercept=False)
    assert solution.report.status is Status.UNCERTIFIED
    error = (fractions(solution.coef) - w).astype(float)
    # The wide case goes through A A', and its error grows with the square of the condition number, here up to 1e3 and 2^spread.
    allowed = 1e-10 if n >= p else 1e-14 * np.linalg.cond(left) ** 2 * np.linalg.cond(right) ** 2
    assert np.linalg.norm(error) <= allowed * np.linalg.norm(w.astype(float))


def test_svd_leaves_a_column_alone_that_is_rounding():
    rng = np.random.default_rng(531)
    X, y = rng.standard_normal((50, 4)), rng.standard_normal(50)
    X[:, 2] = 0.1 + 2.0**-56 * rng.integers(0, 2, 50)
    X[:, 3] = X[:, 0] + X[:, 1]
    solution = ridge(X, y, 0.0, solver="svd")
    assert abs(solution.coef[2]) < 1
    np.testing.assert_allclose(solution.coef[3], solution.coef[0] + solution.coef[1], rtol=1e-8)


FILIP = """0.8116 -6.860120914 0.9072 -4.324130045 0.9052 -4.358625055 0.9039 -4.358426747 0.8053 -6.955852379 0.8377 -6.661145254
0.8667 -6.355462942 0.8809 -6.118102026 0.7975 -7.115148017 0.8162 -6.815308569 0.8515 -6.519993057 0.8766 -6.204119983
0.8885 -5.853871964 0.8859 -6.109523091 0.8959 -5.79832982 0.8913 -5.482672118 0.8959 -5.171791386 0.8971 -4.851705903
0.9021 -4.517126416 0.909 -4.143573228 0.9139 -3.709075441 0.9199 -3.499489089 0.8692 -6.300769497 0.8872 -5.953504836
0.89 -5.642065153 0.891 -5.031376979 0.8977 -4.680685696 0.9035 -4.329846955 0.9078 -3.928486195 0.7675 -8.56735134
0.7705 -8.363211311 0.7713 -8.107682739 0.7736 -7.823908741 0.7775 -7.522878745 0.7841 -7.218819279 0.7971 -6.920818754
0.8329 -6.628932138 0.8641 -6.323946875 0.8804 -5.991399828 0.7668 -8.781464495 0.7633 -8.663140179 0.7678 -8.473531488
0.7697 -8.247337057 0.77 -7.971428747 0.7749 -7.676129393 0.7796 -7.352812702 0.7897 -7.072065318 0.8131 -6.774174009
0.8498 -6.478861916 0.8741 -6.159517513 0.8061 -6.835647144 0.846 -6.53165267 0.8751 -6.224098421 0.8856 -5.910094889
0.8919 -5.598599459 0.8934 -5.290645224 0.894 -4.974284616 0.8957 -4.64454848 0.9047 -4.290560426 0.9129 -3.885055584
0.9209 -3.408378962 0.9219 -3.13200249 0.7739 -8.726767166 0.7681 -8.66695597 0.7665 -8.511026475 0.7703 -8.165388579
0.7702 -7.886056648 0.7761 -7.588043762 0.7809 -7.283412422 0.7961 -6.995678626 0.8253 -6.691862621 0.8602 -6.392544977
0.8809 -6.067374056 0.8301 -6.684029655 0.8664 -6.378719832 0.8834 -6.065855188 0.8898 -5.752272167 0.8964 -5.132414673
0.8963 -4.811352704 0.9074 -4.098269308 0.9119 -3.66174277 0.9228 -3.2644011"""
FILIP_CERTIFIED = """-1467.48961422980 -2772.17959193342 -2316.37108160893 -1127.97394098372 -354.478233703349 -75.1242017393757
-10.8753180355343 -1.06221498588947 -0.0670191154593408 -0.00246781078275479 -0.0000402962525080404"""
LONGLEY = """60323 83.0 234289 2356 1590 107608 1947 61122 88.5 259426 2325 1456 108632 1948
60171 88.2 258054 3682 1616 109773 1949
61187 89.5 284599 3351 1650 110929 1950 63221 96.2 328975 2099 3099 112075 1951 63639 98.1 346999 1932 3594 113270 1952
64989 99.0 365385 1870 3547 115094 1953 63761 100.0 363112 3578 3350 116219 1954 66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956 68169 108.4 442769 2936 2798 120445 1957 66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959 69564 114.2 502601 3931 2514 125368 1960 69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962"""
LONGLEY_CERTIFIED = """-3482258.63459582 15.0618722713733 -0.0358191792925910 -2.02022980381683 -1.03322686717359
-0.0511041056535807 1829.15146461355"""


def numbers(text):
    return np.array([float(word) for word in text.split()])


def digits(found, wanted):
    """How many digits of the worst number are right"""
    errors = [float(abs(Fraction(float(f)) / Fraction(w) - 1)) for f, w in zip(found, wanted, strict=True)]
    return -float(np.log10(max(errors) + 1e-16))


@pytest.mark.parametrize("solver", ["svd", "auto"])
def test_certified_regressions(solver):
    """NIST StRD, https://www.itl.nist.gov/div898/strd: a polynomial of degree 10, and collinear columns in raw units"""
    y, x = np.ascontiguousarray(numbers(FILIP).reshape(-1, 2).T)
    X = x[:, None] ** np.arange(1, 11)
    solution = ridge(X, y, 0.0, solver=solver)
    found = [solution.intercept, *solution.coef]
    # Powers rounded to float64 leave the exact least squares solution 7.6 digits of the certified one.
    assert digits(found, numbers(FILIP_CERTIFIED)) > 7
    truth = InFractions(X, y, 0.0)
    assert digits(found, [truth.intercept(solution.coef), *truth.w]) > 8
    assert not plainly_failed(make_problem(X, y, np.zeros(1), None, True, 1), solution.coef[:, None], 1e-6)
    data = numbers(LONGLEY).reshape(-1, 7)
    solution = ridge(data[:, 1:], data[:, 0], 0.0, solver=solver)
    assert digits([solution.intercept, *solution.coef], numbers(LONGLEY_CERTIFIED)) > 11


LEAST_DIGITS = {
    "Filip": 7.4,
    "Wampler1": 9,
    "Wampler2": 11,
    "Wampler3": 9,
    "Wampler4": 9,
    "Wampler5": 7.6,
    "Norris": 12,
    "Longley": 13,
}
"""What scikit-learn's best solver reaches, less what luck may give it; Filip: what float64 powers leave."""


@pytest.mark.skipif(not (FOLDER / "nist_strd.json").exists(), reason=f"no data in {FOLDER}")
@pytest.mark.parametrize("solver", ["svd", "auto"])
def test_all_certified_regressions(solver):
    sets = json.loads((FOLDER / "nist_strd.json").read_text(encoding="utf-8"))
    for name, facts in sets.items():
        if name.startswith("_"):
            continue
        with np.load(FOLDER / f"nist_{name.lower()}.npz") as arrays:
            X, y = arrays["X"], arrays["y"]
        solution = ridge(X, y, 0.0, solver=solver, fit_intercept=facts["intercept"])
        found = [*([solution.intercept] * facts["intercept"]), *solution.coef]
        certified = [float(value) for value in facts["certified"]["estimate"]]
        assert digits(found, certified) >= LEAST_DIGITS.get(name, 12), name


@pytest.mark.parametrize("solver", ["cholesky", "cg", "cd"])
def test_what_plainly_failed_is_seen(solver):
    y, x = np.ascontiguousarray(numbers(FILIP).reshape(-1, 2).T)
    X = x[:, None] ** np.arange(1, 11)
    problem = make_problem(X, y, np.zeros(1), None, True, 1)
    coef = ridge(X, y, 0.0, solver=solver).coef
    truth = InFractions(X, y, 0.0)
    assert (truth.error(coef) > 1e-6) == plainly_failed(problem, coef[:, None], 1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_coefficient_that_is_fixed_at_zero_has_not_failed(solver):
    """The gradient there is not zero, and is not to be"""
    rng = np.random.default_rng(539)
    X = rng.standard_normal((20, 4))
    solution = ridge(X, 10 * X[:, 0] + rng.standard_normal(20), 0.0, penalty_weights=[np.inf, 1.0, 1.0, 1.0], solver=solver)
    assert solution.coef[0] == 0
    assert solution.report.status is Status.UNCERTIFIED


def test_what_did_not_fail_is_not_said_to_have():
    """Fits of any condition: whatever is found to have failed has"""
    failed = 0
    for seed in range(60):
        rng = np.random.default_rng(540 + seed)
        n, p = int(rng.integers(4, 14)), int(rng.integers(2, 8))
        X = rng.standard_normal((n, p)) @ np.diag(10.0 ** -np.linspace(0, rng.uniform(0, 14), p)) @ rng.standard_normal((p, p))
        y = rng.standard_normal(n)
        solver = SOLVERS[1 + seed % 3]
        coef = ridge(X, y, 0.0, solver=solver, max_iter=3 if seed % 5 == 0 and solver != "svd" else None).coef
        if plainly_failed(make_problem(X, y, np.zeros(1), None, True, 1), coef[:, None], 1e-6):
            failed += 1
            assert InFractions(X, y, 0.0).error(coef) > 1e-6
    assert failed > 3
