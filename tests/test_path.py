"""Every point of a path, by every method, is within tol of the closed form and within what its report claims."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from scipy.linalg import eigh_tridiagonal
from truth import Exact

import fastridge
from fastridge import Status, path, penalty_range, ridge_path
from fastridge.formulation import make_problem
from fastridge.krylov import proof
from fastridge.solvers import galerkin, shifted

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = {"tall": (60, 7), "square": (20, 20), "wide": (12, 40), "n=1": (1, 6), "p=1": (30, 1)}
ALPHAS = np.array([1.0, 1e3, 1e-4, 1.0, 30.0])


EXACT = {}


def check(found, X, y, alphas, weights=None, fit_intercept=True, tol=1e-6, key=None):
    """Judge every point from outside; the closed forms of a `key` are computed once"""
    X = X.toarray() if sp.issparse(X) else X
    k = 1 if np.ndim(y) == 1 else y.shape[1]
    shape = (len(alphas),) if np.ndim(y) == 1 else (len(alphas), k)
    assert found.coefs.shape == (*shape, X.shape[1])
    assert found.intercepts.shape == shape
    assert found.coefs.dtype == found.intercepts.dtype == np.float64
    np.testing.assert_array_equal(found.alphas, alphas)
    assert len(found.reports) == len(alphas)
    for i, (alpha, report) in enumerate(zip(alphas, found.reports, strict=True)):
        if key is None or (key, alpha) not in EXACT:
            EXACT[key, alpha] = Exact(X, y, alpha, weights, fit_intercept)
        exact = EXACT[key, alpha]
        error, slack = exact.error(found.coefs[i]).max(), exact.rounding.max()
        assert report.status is Status.CONVERGED, (alpha, report)
        assert report.error <= tol
        assert error <= tol + slack
        assert error <= report.error_bound + slack
        assert error <= 3 * report.error + slack
        assert report.n_iter.shape == (k,)
        scale = np.abs(exact.y_mean) + np.abs(np.atleast_2d(found.coefs[i])) @ np.abs(exact.x_mean)
        assert (np.abs(found.intercepts[i] - exact.best_intercept(found.coefs[i])) <= 1e-14 * scale).all()


@pytest.mark.parametrize("solver", ["auto", "cg", "cholesky", "svd", "cd"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_matrix", "both apart"])
@pytest.mark.parametrize("seed", range(4))
def test_grid(seed, storage, shape, solver):
    n, p = SHAPES[shape]
    dtype, intercept = ("float64", "float32")[seed % 2], seed < 2
    X = make_X(n, p, seed=n + 100 * p, dtype=dtype)
    y = make_y(X, seed=3, n_targets=(0, 3)[seed in (1, 2)])
    weights = make_weights(n, seed=5, zeros=seed == 3) if seed in (2, 3) else None
    found = ridge_path(STORAGES[storage](X), y, ALPHAS, sample_weight=weights, fit_intercept=intercept, solver=solver)
    check(found, X, y, ALPHAS, weights, intercept)
    np.testing.assert_array_equal(found.coefs[0], found.coefs[3])
    assert {report.solver for report in found.reports} <= {"auto": {"eigh", "svd", "cg"}}.get(solver, {solver})


def text(n, p, seed, spread):
    """Sparse counts; with `spread` some columns are a hundred times as frequent as others"""
    rng = np.random.default_rng(seed)
    share = np.minimum(1.0, 6.0 / np.arange(1, p + 1)) if spread else np.full(p, 40.0 / p)
    X = sp.csr_array((rng.random((n, p)) < share) * rng.uniform(0.5, 2.0, (n, p)))
    y = X @ rng.standard_normal(p) + rng.standard_normal(n)
    return X, y


def krylov(monkeypatch):
    monkeypatch.setattr(path, "_prefer_eigen", lambda problem, n_penalties: (False, "told to"))


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("storage", ["csr_array", "csc_array", "C"])
@pytest.mark.parametrize(("n", "p", "spread"), [(1000, 600, True), (1000, 600, False), (300, 900, True), (300, 900, False)])
def test_krylov_spaces(monkeypatch, n, p, spread, storage, tol):
    krylov(monkeypatch)
    X, y = text(n, p, 150, spread)
    alphas = np.logspace(-2, 3, 5)[::-1]
    found = ridge_path(STORAGES[storage](X.toarray()), y, alphas, tol=tol)
    check(found, X, y, alphas, tol=tol, key=(n, spread))
    assert {report.solver for report in found.reports} == {"cg"}
    method = "Galerkin" if n > p and spread else "multi-shift"
    if not (n < p and spread):
        assert method in found.reports[0].reason


@pytest.mark.parametrize("spread", [True, False])
def test_several_targets_and_weights_on_krylov_spaces(monkeypatch, spread):
    krylov(monkeypatch)
    X, y = text(900, 600, 151, spread)
    Y = np.column_stack([y, -2 * y + np.random.default_rng(152).standard_normal(len(y)), np.ones(len(y))])
    weights, alphas = make_weights(len(y), 153), np.array([0.1, 100.0, 0.1, 3.0])
    check(ridge_path(X, Y, alphas, sample_weight=weights), X, Y, alphas, weights)


def test_many_alphas_take_fewer_products_than_one_by_one(monkeypatch):
    """Counted where the data are read: vectors multiplied, of one solve at the smallest alpha and of the path"""
    krylov(monkeypatch)
    counts = []
    normal = fastridge.operators.design.Design.normal

    def counted(self, v, target=None):
        counts.append(v.shape[1])
        return normal(self, v, target)

    monkeypatch.setattr(fastridge.operators.design.Design, "normal", counted)
    alphas = np.logspace(-2, 2, 60)
    for n, p, spread in ((4000, 1500, True), (800, 2000, False)):
        X, y = text(n, p, 154, spread)
        fastridge.ridge(X, y, alphas[0], solver="cg")
        one = sum(counts)
        counts.clear()
        assert ridge_path(X, y, alphas).converged
        assert sum(counts) < 8 * one + 60
        counts.clear()


def test_chunks(monkeypatch):
    X, y = make_X(40, 6, seed=155), make_y(make_X(40, 6, seed=155), 156, n_targets=2)
    monkeypatch.setattr(fastridge.problem, "CHUNK_BYTES", 2000)
    for solver in ("auto", "cg"):
        check(ridge_path(X, y, ALPHAS, solver=solver), X, y, ALPHAS)


def test_what_a_space_misses_is_finished_by_cg(monkeypatch):
    krylov(monkeypatch)
    X, y = text(1500, 1100, 157, True)
    alphas = np.logspace(-2, 2, 4)
    monkeypatch.setattr(galerkin, "MAX_BASIS", 12)
    found = ridge_path(X, y, alphas)
    check(found, X, y, alphas)
    assert max(int(report.n_iter[0]) for report in found.reports) > 12  # the space has no more directions


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_a_space_proves_its_answers_itself(monkeypatch, scale):
    """CG, which would go on from answers that are not proven, is not given a step"""
    krylov(monkeypatch)
    monkeypatch.setattr(proof, "MAX_LEGS", 0)
    monkeypatch.setattr(path, "_one_by_one", lambda *args: None)
    X, y = text(1500, 1100, 157, True)
    found = ridge_path(scale * X, y, scale**2 * np.logspace(-1, 2, 8))
    assert "Galerkin" in found.reports[0].reason
    assert found.converged


def test_a_space_that_misses_says_so():
    X, y = text(1500, 1100, 158, True)
    for alphas in (np.logspace(-2, 2, 3), [0.01]):
        found = ridge_path(X, y, alphas, solver="cg", max_iter=4, tol=1e-10)
        for alpha, coef, report in zip(alphas, found.coefs, found.reports, strict=True):
            exact = Exact(X.toarray(), y, alpha)
            assert exact.error(coef)[0] <= report.error_bound + exact.rounding[0]
            assert report.status is Status.MAX_ITER or report.error <= 1e-10


@pytest.mark.parametrize("n_alphas", [1, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_alphas_by_number(shape, n_alphas):
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=160)
    y = make_y(X, 161)
    found = ridge_path(X, y, n_alphas)
    assert found.alphas.shape == (n_alphas,)
    assert (np.diff(found.alphas) < 0).all()
    check(found, X, y, found.alphas)
    exact = Exact(X, y, found.alphas[0])
    assert exact.size[0] ** 2 <= 1e-3 * np.sum((y - y.mean()) ** 2) * (1 + 1e-12)
    np.testing.assert_allclose(ridge_path(X, 1e6 * y, n_alphas).alphas, found.alphas)


def eigenvalues(X, weights=None, fit_intercept=True):
    """Of A'A, those that are not rounding"""
    X = X.toarray() if sp.issparse(X) else np.asarray(X, dtype=np.float64)
    s = np.ones(len(X)) if weights is None else weights
    A = np.sqrt(s)[:, None] * (X - fit_intercept * np.average(X, axis=0, weights=s))
    values = np.linalg.svd(A, compute_uv=False) ** 2
    return values[values > 1e-24 * values.max()]


def left_out(values, alpha):
    """Share of the degrees of freedom that alpha takes away"""
    return float((alpha / (values + alpha)).mean())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_matrix"])
def test_the_least_alpha_has_the_degrees_of_freedom(storage, shape, weighted):
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=170)
    y, weights = make_y(X, 171), make_weights(n, 172) if weighted else None
    for intercept in (True, False) if n > 1 else (False,):
        values = eigenvalues(X, weights, intercept)
        alphas = ridge_path(STORAGES[storage](X), y, 5, sample_weight=weights, fit_intercept=intercept).alphas
        np.testing.assert_allclose(np.diff(np.log(alphas)), np.log(alphas[1] / alphas[0]), rtol=1e-9)
        assert left_out(values, alphas[-1]) <= 0.01
        assert left_out(values, 100 * alphas[-1]) > 1e-3  # and no further than that takes


@pytest.mark.parametrize(("n", "p", "spread"), [(900, 600, True), (900, 600, False), (540, 900, True), (540, 900, False)])
def test_the_least_alpha_from_a_few_products(monkeypatch, n, p, spread):
    X, y = text(n, p, 173, spread)
    products = []
    normal = fastridge.operators.design.Design.normal
    monkeypatch.setattr(fastridge.operators.design.Design, "normal", lambda *args: products.append(1) or normal(*args))
    monkeypatch.setattr(path, "_solve", lambda *args: None)
    alphas = ridge_path(X, y, 5).alphas
    assert len(products) <= penalty_range.LANCZOS_STEPS
    assert left_out(eigenvalues(X), alphas[-1]) <= 0.05
    assert left_out(eigenvalues(X), 100 * alphas[-1]) > 0.01


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_as_many_lanczos_steps_as_unknowns_find_all_eigenvalues(monkeypatch, shape):
    """Of the Gram matrix scaled to a diagonal of ones"""
    X = np.random.default_rng(190).standard_normal(shape)
    problem = make_problem(X, make_y(X, 191), np.ones(1), None, False, 1)
    found = []
    monkeypatch.setattr(penalty_range, "LANCZOS_STEPS", 8)
    monkeypatch.setattr(penalty_range, "eigh_tridiagonal", lambda *args: found.append(eigh_tridiagonal(*args)) or found[-1])
    penalty_range._least_by_products(problem, np.ones(8, dtype=bool), 1e-12)
    B = X if shape[1] == 8 else X.T
    B = B / np.linalg.norm(B, axis=0)
    np.testing.assert_allclose(found[0][0], np.linalg.eigvalsh(B.T @ B), rtol=1e-6)


def test_the_least_alpha_where_columns_differ_in_scale_by_decades():
    """Their eigenvalues are below the rounding of the largest one, yet all of them count"""
    rng = np.random.default_rng(174)
    X = rng.standard_normal((300, 8)) * np.logspace(0, -10, 8)
    y = X @ np.logspace(0, 10, 8) + 0.01 * rng.standard_normal(300)
    found = ridge_path(X[:200], y[:200], 60)
    fits = found.predict(X[200:])
    errors = ((fits - y[200:]) ** 2).mean(axis=1) / y[200:].var()
    assert errors[-1] < 1e-4
    assert found.converged


def test_alphas_end_where_rounding_begins():
    rng = np.random.default_rng(175)
    base = rng.standard_normal((80, 6))
    X = np.hstack([base, base + 1e-6 * rng.standard_normal((80, 6)), base[:, :2]])
    y = make_y(X, 176)
    found = ridge_path(X, y, 9)
    eps, largest = np.finfo(float).eps, eigenvalues(X).max()
    assert left_out(eigenvalues(X), found.alphas[-1]) > 0.1  # more digits are not to be had
    assert 10 * eps * largest < found.alphas[-1] < 1e-10 * largest
    check(found, X, y, found.alphas)


@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_column_does_not_count(weighted, make):
    X = make_X(90, 5, seed=185, share=1.0)
    y, weights = make_y(X, 186), make_weights(90, 187) if weighted else None
    alphas = ridge_path(make(X), y, 4, sample_weight=weights).alphas
    for constant in (0.1, np.pi, 1e8 / 3, 1e12 / 7):
        for d in (None, [1, 1, 1, 1, 1, 1e-6]):
            with_it = make(np.column_stack([X, np.full(90, constant)]))
            found = ridge_path(with_it, y, 4, sample_weight=weights, penalty_weights=d).alphas
            np.testing.assert_allclose(np.log10(found), np.log10(alphas), atol=0.5)


def test_alphas_scale_with_X_and_not_with_y():
    X = make_X(60, 7, seed=177)
    for features in (X, make_X(7, 60, seed=177)):
        y = make_y(features, 178, n_targets=2)
        alphas = ridge_path(features, y, 5).alphas
        for scale in (1e6, 1e-6, 1e100):
            np.testing.assert_allclose(ridge_path(features, scale * y, 5).alphas, alphas, rtol=1e-9)
        for scale in (1e3, 1e-3):
            np.testing.assert_allclose(ridge_path(scale * features, y, 5).alphas, scale**2 * alphas, rtol=0.02)


def test_alphas_with_penalty_weights():
    """They are those of the scaled columns that are left once unpenalised ones are projected out"""
    X = make_X(60, 7, seed=179)
    y, d = make_y(X, 180), np.array([4.0, 0.0, 0.25, np.inf, 1.0, 0.0, 9.0])
    rest = np.column_stack([np.ones(60), X[:, d == 0]])
    project = np.eye(60) - rest @ np.linalg.pinv(rest)
    penalised = np.isfinite(d) & (d > 0)
    A = project @ X[:, penalised] / np.sqrt(d[penalised])
    found = ridge_path(X, y, 4, penalty_weights=d)
    np.testing.assert_allclose(found.alphas, ridge_path(A, project @ y, 4, fit_intercept=False).alphas, rtol=0.05)


def test_alphas_that_float64_does_not_hold_are_refused():
    X = make_X(40, 40, seed=188) * 1e-162
    with pytest.raises(OverflowError, match="no float64 numbers; rescale X"):
        ridge_path(X, make_y(X, 189) * 1e162, 5)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_alphas_where_squares_nearly_leave_the_range(monkeypatch, scale):
    monkeypatch.setattr(path, "_solve", lambda *args: None)
    X = make_X(40, 40, seed=188) * scale
    alphas = ridge_path(X, make_y(X, 189) / scale, 5).alphas
    assert np.isfinite(alphas).all()
    assert (np.diff(alphas) < 0).all()
    assert alphas[-1] > 0


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_alphas_where_y_has_nothing_to_do_with_X(shape):
    n, p = SHAPES[shape]
    X = make_X(n, p, seed=181)
    y = make_y(X, 182)
    A = X - X.mean(axis=0)
    y = y - y.mean() - A @ np.linalg.lstsq(A, y, rcond=None)[0] if n > p else np.full(n, 3.0)
    alphas = ridge_path(X, y, 5).alphas
    assert alphas[0] >= 0.99 * 10**penalty_range.LEAST_DECADES * alphas[-1] > 0
    assert left_out(eigenvalues(X), alphas[-1]) <= 0.01


def test_the_gram_matrix_is_formed_once(monkeypatch):
    counts = []
    gram = fastridge.operators.design.Design.gram
    monkeypatch.setattr(fastridge.operators.design.Design, "gram", lambda self, go_on=None: counts.append(1) or gram(self, go_on))
    X = make_X(60, 7, seed=183)
    assert {report.solver for report in ridge_path(X, make_y(X, 184), 20).reports} == {"eigh"}
    assert counts == [1]


def test_constant_y_and_zero_X():
    X = make_X(30, 5, seed=162)
    for X_, y in ((X, np.full(30, 2.0)), (np.zeros((30, 5)), np.arange(30.0)), (sp.csr_array((30, 5)), np.arange(30.0))):
        for solver in ("auto", "cg"):
            found = ridge_path(X_, y, 5, solver=solver)
            np.testing.assert_allclose(found.coefs, 0, atol=1e-12)
            np.testing.assert_allclose(found.intercepts, y.mean())
            assert found.converged


@pytest.mark.parametrize("solver", ["auto", "svd"])
def test_alpha_zero_is_least_squares_and_not_certified(solver):
    for n, p in ((40, 6), (6, 40)):
        X = make_X(n, p, seed=163)
        y = make_y(X, 164)
        found = ridge_path(X, y, [1.0, 0.0, 2.0], solver=solver)
        assert [report.status for report in found.reports] == ["converged", "uncertified", "converged"]
        assert found.reports[1].error_bound == np.inf
        least = np.linalg.lstsq(X - X.mean(axis=0), y - y.mean(), rcond=None)[0]
        np.testing.assert_allclose(found.coefs[1], least, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("alphas", "error", "message"),
    [
        (0, ValueError, "at least 1"),
        (-3, ValueError, "at least 1"),
        (True, TypeError, "whole number"),
        ("ten", TypeError, "whole number"),
        (2.5, ValueError, "one dimension"),
        ([], ValueError, "one dimension|whole number"),
        ([[1.0]], ValueError, "one dimension"),
        ([1.0, -1.0], ValueError, "not negative"),
        ([1.0, np.nan], ValueError, "finite"),
        ([1.0, np.inf], ValueError, "finite"),
    ],
)
def test_bad_alphas_are_refused_before_any_work(alphas, error, message):
    with pytest.raises(error, match=message):
        ridge_path(object(), None, alphas)


def test_predict_and_what_it_prints():
    X = make_X(30, 5, seed=165)
    Y = make_y(X, 166, n_targets=2)
    found = ridge_path(X, Y, [2.0, 1.0])
    np.testing.assert_allclose(found.predict(sp.csr_array(X))[1], X @ found.coefs[1].T + found.intercepts[1])
    assert ridge_path(X, Y[:, 0], [2.0, 1.0]).predict(X).shape == (2, 30)
    with pytest.raises(ValueError, match="X has 4 features, the path was fitted with 5"):
        found.predict(X[:, :4])
    assert "2 alphas from 2 to 1 by eigh" in str(found)
    assert len(repr(found)) < 200


def krylov_space(A, b, n_steps):
    """An orthonormal basis, (c, n_steps), of the space that b, A A'b, (A A')^2 b, ... span"""
    basis, v = np.zeros((len(b), 0)), b
    for _ in range(n_steps):
        for _ in range(2):
            v = v - basis @ (basis.T @ v)
        v = v / np.linalg.norm(v)
        basis = np.column_stack([basis, v])
        v = A @ (A.T @ v)
    return basis


@pytest.mark.parametrize(("n", "p"), [(200, 600), (600, 200)])
def test_multi_shift_recurrences_give_the_best_answer_in_the_krylov_space_at_every_step(monkeypatch, n, p):
    monkeypatch.setattr(path, "_one_by_one", lambda *args: None)  # which would go on from answers that are not proven
    X, y = text(n, p, 168, False)
    A, b = X.toarray() - X.mean(axis=0), y - y.mean()
    small, rhs = (A, b) if n < p else (A.T, A.T @ b)
    for n_steps in (1, 2, 5, 31, 32, 33):  # on either side of the buffer of residuals
        found = ridge_path(X, y, [5.0, 0.5, 50.0], solver="cg", tol=1e-13, max_iter=n_steps)
        assert "multi-shift" in found.reports[0].reason
        basis = krylov_space(small, rhs, n_steps)
        image = basis.T @ small
        for alpha, coef in zip(found.alphas, found.coefs, strict=True):
            x = basis @ np.linalg.solve(image @ image.T + alpha * np.eye(n_steps), basis.T @ rhs)
            np.testing.assert_allclose(coef, A.T @ x if n < p else x, rtol=0, atol=1e-11 * np.linalg.norm(coef))
    assert shifted.BUFFER == 32
