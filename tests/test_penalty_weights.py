"""Penalties that differ between features: every solver and storage against the closed form of the weighted penalty."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

from fastridge import Ridge, RidgeClassifier, Status, explain, ridge, ridge_path
from fastridge.formulation import make_problem, plain_form

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = {"tall": (60, 9), "square": (20, 20), "wide": (14, 40)}
KINDS = ("positive", "with inf", "with zeros", "with zeros and inf")
SOLVERS = ("cholesky", "svd", "cg", "cd", "auto")


def make_d(p, kind, seed=7):
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-2, 2, p)
    if "zeros" in kind:
        d[[1, 4, p - 1]] = 0
    if "inf" in kind:
        d[[0, 5]] = np.inf
    return d


def cases():
    settings = product(SOLVERS, SHAPES, KINDS)
    storages = list(product(("C", "F", "csr_array", "csc_array", "both apart"), (np.float64, np.float32)))
    for i, (solver, shape, kind) in enumerate(settings):
        for j in range(3):
            storage, dtype = storages[(3 * i + j) % len(storages)]
            yield solver, shape, kind, storage, dtype, bool((i + j) % 2), bool((i // 2 + j) % 2), (0, 3)[j % 2]


@pytest.mark.parametrize(("solver", "shape", "kind", "storage", "dtype", "intercept", "weighted", "k"), list(cases()))
def test_every_solver(solver, shape, kind, storage, dtype, intercept, weighted, k):
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=n, dtype=dtype)
    y, d = make_y(X, 3, k), make_d(p, kind)
    s = make_weights(n, 5) if weighted else None
    alpha = np.array([0.1, 1.0, 30.0]) if k else 0.5
    exact = Exact(X, y, alpha, s, intercept, d)
    solution = ridge(
        STORAGES[storage](X), y, alpha, sample_weight=s, fit_intercept=intercept, solver=solver, penalty_weights=d, tol=1e-8
    )
    assert solution.report.status is Status.CONVERGED
    error = exact.error(solution.coef).max()
    assert error <= 1e-8 + 1e-12
    assert error <= solution.report.error_bound + 1e-12
    assert (np.atleast_2d(solution.coef)[:, np.isinf(d)] == 0).all()
    best = exact.best_intercept(solution.coef)
    np.testing.assert_allclose(np.atleast_1d(solution.intercept), best, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
@pytest.mark.parametrize(("n", "p"), [(2000, 150), (150, 900)])
def test_larger_data(n, p, storage):
    rng = np.random.default_rng(1)
    X = make_X(n, p, seed=11, share=0.2)
    y, d = make_y(X, 12), make_d(p, "with zeros and inf")
    d[rng.integers(p, size=9)] = 0
    exact = Exact(X, y, 1.0, d=d)
    for solver in ("auto", "cg"):
        solution = ridge(STORAGES[storage](X), y, 1.0, penalty_weights=d, solver=solver, n_threads=2)
        assert solution.report.converged
        assert exact.error(solution.coef).max() <= 1e-6


def test_equal_weights_scale_alpha():
    X, y = make_X(50, 8, 1), make_y(make_X(50, 8, 1), 2)
    np.testing.assert_allclose(
        ridge(X, y, 2.0, penalty_weights=np.full(8, 3.0)).coef, ridge(X, y, 6.0).coef, rtol=1e-8, atol=1e-10
    )
    assert (ridge(X, y, 2.0, penalty_weights=np.ones(8)).coef == ridge(X, y, 2.0).coef).all()


def test_an_unpenalised_column_of_ones_is_an_intercept():
    X, y = make_X(50, 8, 1), make_y(make_X(50, 8, 1), 2)
    with_ones = np.column_stack([X, np.ones(50)])
    free = ridge(with_ones, y, 2.0, penalty_weights=np.r_[np.ones(8), 0.0], fit_intercept=False)
    plain = ridge(X, y, 2.0)
    np.testing.assert_allclose(free.coef[:8], plain.coef, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(free.coef[8], plain.intercept, rtol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_more_unpenalised_columns_than_samples_or_all(shape):
    n, p = SHAPES[shape]
    X, y = make_X(n, p, 3), make_y(make_X(n, p, 3), 4)
    for d in (np.zeros(p), np.r_[1.0, np.zeros(p - 1)]):
        w = ridge(X, y, 1.0, penalty_weights=d).coef
        gradient = (X - X.mean(axis=0)).T @ ((y - y.mean()) - (X - X.mean(axis=0)) @ w) - d * w
        scale = np.linalg.norm(X - X.mean(axis=0), axis=0) * np.linalg.norm(y - y.mean())
        assert (np.abs(gradient) <= 1e-6 * scale + 1e-9).all()


def test_everything_fixed():
    X, y = make_X(30, 5, 1), make_y(make_X(30, 5, 1), 2)
    solution = ridge(X, y, 1.0, penalty_weights=np.full(5, np.inf))
    assert (solution.coef == 0).all()
    assert solution.intercept == pytest.approx(y.mean())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_paths(kind, shape):
    n, p = SHAPES[shape]
    X = make_X(n, p, 5)
    y, d = make_y(X, 6, 2), make_d(p, kind)
    path = ridge_path(X, y, [10.0, 0.1, 1.0], penalty_weights=d)
    for alpha, coefs, intercepts, report in zip(path.alphas, path.coefs, path.intercepts, path.reports, strict=True):
        exact = Exact(X, y, alpha, d=d)
        assert report.converged
        assert exact.error(coefs).max() <= 1e-6
        np.testing.assert_allclose(intercepts, exact.best_intercept(coefs), rtol=1e-10, atol=1e-10)


def test_with_bounds():
    X = make_X(60, 9, 5)
    y, d = make_y(X, 6), make_d(9, "with zeros and inf")
    w = ridge(X, y, 1.0, penalty_weights=d, positive=True, tol=1e-9).coef
    A, target = X - X.mean(axis=0), y - y.mean()
    free = np.isfinite(d)
    gradient = A.T @ (A @ w - target) + np.where(free, d, 0) * w
    scale = np.linalg.norm(A, axis=0) * np.linalg.norm(target) + 1e-12
    assert (w >= 0).all()
    assert (w[~free] == 0).all()
    assert (np.abs(gradient[free & (w > 0)]) <= 1e-7 * scale[free & (w > 0)]).all()
    assert (gradient[free & (w == 0)] >= -1e-7 * scale[free & (w == 0)]).all()


def test_estimators():
    X = make_X(60, 9, 5)
    y, d = make_y(X, 6), make_d(9, "with zeros")
    model = Ridge(0.5, penalty_weights=d, warm_start=True, solver="cg").fit(X, y)
    assert Exact(X, y, 0.5, d=d).error(model.coef_) <= 1e-6
    first = model.n_iter_[0]
    assert model.fit(X, y).n_iter_[0] < first
    assert Exact(X, y, 0.5, d=d).error(model.coef_) <= 1e-6
    labels = (y > np.median(y)).astype(int)
    classifier = RidgeClassifier(0.5, penalty_weights=d).fit(X, labels)
    assert Exact(X, 2.0 * labels - 1, 0.5, d=d).error(classifier.coef_) <= 1e-6
    assert explain(X, y, penalty_weights=d).solver in ("cholesky", "cg")


def make_D(p, kind):
    rng = np.random.default_rng(9)
    if kind == "definite":
        root = rng.standard_normal((p + 3, p))
        return root.T @ root
    if kind == "sparse second differences":
        differences = sp.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(p - 2, p))
        return (differences.T @ differences).tocsc()
    root = rng.standard_normal((p // 2, p))
    return root.T @ root


@pytest.mark.parametrize("kind", ["definite", "sparse second differences", "low rank"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("storage", "intercept"), [("C", True), ("F", False), ("csr_array", True), ("csc_array", False)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_penalty_matrix(solver, shape, kind, storage, intercept):
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=n)
    Y, D, s = make_y(X, 3, 2), make_D(p, kind), make_weights(n, 5)
    full = D.toarray() if sp.issparse(D) else D
    solution = ridge(
        STORAGES[storage](X), Y, 0.5, sample_weight=s, fit_intercept=intercept, penalty_weights=D, solver=solver, tol=1e-8
    )
    assert solution.report.status is Status.CONVERGED
    # The same problem in the coordinates of D's eigenvectors, where its weights are the eigenvalues.
    values, vectors = np.linalg.eigh(full)
    values = np.where(values > 1e-10 * values.max(), values, 0.0)
    exact = Exact(X @ vectors, Y, 0.5, s, intercept, values)
    error = exact.error(solution.coef @ vectors).max()
    assert error <= 1e-8 + 1e-9  # eigenvectors are as exact as the gap between zero and the smallest eigenvalue lets them be
    assert error <= solution.report.error_bound + 1e-9
    best = exact.best_intercept(solution.coef @ vectors)
    np.testing.assert_allclose(solution.intercept, best, rtol=1e-9, atol=1e-9)


def test_a_diagonal_matrix_is_its_weights():
    X = make_X(60, 9, 5)
    y, d = make_y(X, 6), make_d(9, "with zeros")
    exact = Exact(X, y, 0.5, d=d)
    assert exact.error(Ridge(0.5, penalty_weights=np.diag(d)).fit(X, y).coef_) <= 1e-6
    path = ridge_path(X, y, [2.0, 0.5], penalty_weights=sp.diags_array(d))
    assert exact.error(path.coefs[1]) <= 1e-6


@pytest.mark.parametrize(
    ("D", "message"),
    [
        (np.eye(8), r"shape \(9,\) or \(9, 9\)"),
        (np.triu(np.ones((9, 9))), "symmetric"),
        (-np.eye(9), "semi-definite, its smallest eigenvalue is -1"),
        (np.full((9, 9), np.inf), "finite"),
    ],
)
def test_bad_matrices(D, message):
    X = make_X(60, 9, 5)
    with pytest.raises(ValueError, match=message):
        Ridge(penalty_weights=D).fit(X, make_y(X, 6))


def test_a_matrix_does_not_go_with_bounds():
    X = make_X(60, 9, 5)
    with pytest.raises(ValueError, match="does not go with bounds"):
        Ridge(penalty_weights=np.eye(9) * 2, positive=True).fit(X, make_y(X, 6))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"shape \(9,\)"),
        (1.0, r"shape \(9,\)"),
        (np.full(9, np.nan), "nan for feature 0"),
        (np.r_[np.ones(8), -1.0], "-1 for feature 8"),
        (["a"] * 9, "numeric"),
    ],
)
def test_bad_weights(weights, message):
    X = make_X(60, 9, 5)
    with pytest.raises(ValueError, match=message):
        Ridge(penalty_weights=weights).fit(X, make_y(X, 6))


def test_nothing_of_unpenalised_columns_is_left_in_the_target():
    """Not even the rounding of what they fit, which is a hundred million times what is left"""
    rng = np.random.default_rng(15)
    X = rng.standard_normal((40, 5))
    y = 1e8 * X[:, 1] + rng.standard_normal(40)
    d = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    problem = make_problem(X, y, np.ones(1), None, True, 1, penalty_weights=d)
    target = plain_form(problem).problem.target[:, 0]
    free = X[:, [1, 4]] - X[:, [1, 4]].mean(axis=0)
    basis = np.linalg.qr(free)[0]
    assert np.linalg.norm(basis.T @ target) <= 1e-14 * np.linalg.norm(target)
