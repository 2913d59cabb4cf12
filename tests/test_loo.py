"""Leave-one-out errors against n refits, each without its row, in long double."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from helpers import STORAGES, make_weights, make_X, make_y
from truth import Exact

from fastridge.planning import costs
from fastridge.request import Method, Request
from fastridge.selection import decomposition, factors, loo
from fastridge.selection.loo import LeaveOneOut

EPS = np.finfo(np.float64).eps
ALPHAS = np.array([1e-6, 1e-2, 1.0, 1e3])


def search(X, y, alphas, weights=None, intercept=True, d=None, precise=False, n_threads=2):
    asked = {"fit_intercept": intercept, "positive": False, "bounds": None, "penalty_weights": d}
    request = Request.checked(X, y, weights, Method(), alpha=1.0, **asked)
    return LeaveOneOut(request, np.asarray(alphas, dtype=np.float64), n_threads, precise)


def refits(X, y, alphas, weights=None, intercept=True):
    """sqrt(s_i) (y_i - prediction without row i), (n, a, k)"""
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    s = np.ones(len(X)) if weights is None else weights
    errors = np.empty((len(X), len(alphas), Y.shape[1]))
    for i in range(len(X)):
        others = (np.arange(len(X)) != i) & (s > 0)
        for j, alpha in enumerate(alphas):
            exact = Exact(X[others], Y[others], alpha, s[others], intercept)
            errors[i, j] = np.sqrt(s[i]) * (Y[i] - exact.coef @ X[i] - exact.intercept)
    return errors


def close(got, wanted, tol=1e-9):
    """Relative to the largest error at each penalty"""
    size = np.abs(wanted).max(axis=(0, 2), keepdims=True)
    np.testing.assert_array_less(np.abs(got - wanted) / np.maximum(size, 1e-300), tol)


def judge(X, y, alphas, weights=None, intercept=True, dense=None, tol=1e-9, **options):
    wanted = refits(X if dense is None else dense, y, alphas, weights, intercept)
    found = search(X, y, alphas, weights, intercept, **options).errors(keep=True)
    close(found.errors, wanted, tol)
    np.testing.assert_allclose(found.sq_sums, (wanted**2).sum(axis=0), rtol=2 * tol)


@pytest.mark.parametrize("pieces", ["whole", "small pieces"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", [(25, 7), (7, 25), (12, 12), (13, 12), (2, 1), (2, 3)])
@pytest.mark.parametrize("storage", ["C", "F", "csr_array", "csc_array"])
def test_against_refits(storage, shape, intercept, weighted, pieces, request):
    if pieces == "small pieces":
        request.getfixturevalue("small_pieces")
    dtype = np.float32 if pieces == "whole" else np.float64
    X = make_X(*shape, seed=1, dtype=dtype)
    y = make_y(X, 2, 3)
    judge(STORAGES[storage](X), y, ALPHAS, make_weights(shape[0], 3) if weighted else None, intercept, dense=X, tol=1e-8)


@pytest.mark.parametrize("least", [factors.MIN_SIZE, 1])
@pytest.mark.parametrize("seed", range(150))
def test_random_problems(seed, least, monkeypatch):
    """Rows and columns that repeat, categories with one member, weights of zero, scales over six decades, penalties likewise"""
    monkeypatch.setattr(factors, "MIN_SIZE", least)
    rng = np.random.default_rng(seed)
    n, p = rng.integers(2, 16), rng.integers(1, 16)
    X = rng.standard_normal((n, p)) + rng.choice([0, 5], p)
    if rng.random() < 0.5:
        X *= 10 ** rng.uniform(-3, 3, p)
    if rng.random() < 0.3:
        X[rng.integers(n)] = X[rng.integers(n)]
    if rng.random() < 0.3:
        X[:, rng.integers(p)] = X[:, rng.integers(p)]
    if rng.random() < 0.4:
        X[:, rng.integers(p)] = np.eye(n)[rng.integers(n)]
    if rng.random() < 0.3:
        X *= rng.random((n, p)) < 0.3
    weights = None
    if rng.random() < 0.5:
        weights = make_weights(n, seed, zeros=rng.random() < 0.5)
        weights[:2] = 1.0
    alphas = np.sort(10 ** rng.uniform(-4, 5, 4)) * float(np.square(X).sum() / p + 1) * 1e-3
    storage = rng.choice(["C", "F", "csr_array", "csc_array"])
    judge(STORAGES[storage](X), make_y(X, seed, 2), alphas, weights, bool(rng.random() < 0.6), dense=X, tol=1e-8)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("alpha", [1.0, 1e-6, 1e-10, 1e-13])
def test_rows_that_nothing_else_predicts(alpha, n, intercept):
    """Categories with one member, and a column that two rows alone have: 1 - h loses its digits as alpha gets small"""
    rng = np.random.default_rng(n)
    X = np.hstack([rng.standard_normal((n, 3)), np.eye(n)[:, [2, 5]], np.zeros((n, 1))])
    X[[7, 8], 5] = 1.0, 2.0
    y = make_y(X, 5, 2)
    judge(X, y, [alpha], None, intercept)
    judge(X, y, [alpha], make_weights(n, 6), intercept)


def test_the_others_are_decomposed_once_for_all_such_rows(monkeypatch):
    calls = []
    monkeypatch.setattr(loo, "decompose", lambda *a, **o: calls.append(1) or decomposition.decompose(*a, **o))
    X = np.hstack([np.random.default_rng(0).standard_normal((100, 3)), np.eye(100)[:, :12]])
    search(X, make_y(X, 1), [1e-10, 1e-9, 1.0]).errors()
    assert len(calls) == 2


def least_norm(X, y, intercept):
    """The limit of refits as alpha goes to zero: least squares of minimum norm"""
    errors = np.empty(len(X))
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        shift = (X[others].mean(axis=0), y[others].mean()) if intercept else (0, 0)
        w = np.linalg.lstsq(X[others] - shift[0], y[others] - shift[1], rcond=1e-10)[0]
        errors[i] = y[i] - shift[1] - (X[i] - shift[0]) @ w
    return errors


@pytest.mark.parametrize("alpha", [1e-13, 1e-20, 1e-100, 1e-300])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("kind", ["tall", "wide", "square", "one row more", "repeated rows", "repeated columns", "one member"])
def test_the_limit_of_small_penalties(kind, intercept, alpha):
    rng = np.random.default_rng(3)
    n, p = {"tall": (30, 6), "wide": (6, 30), "square": (12, 12), "one row more": (13, 12)}.get(kind, (20, 8))
    X = rng.standard_normal((n, p))
    if kind == "repeated rows":
        X = np.vstack([X[:5], X[:5], X[5:6], X[5:6]]) @ rng.standard_normal((p, 20))
    if kind == "repeated columns":
        X = np.hstack([X, X[:, :3] + X[:, 3:6]])
    if kind == "one member":
        X[:, 0] = np.eye(n)[4]
    y = rng.standard_normal(len(X)) + 2
    found = search(X, y, [alpha], None, intercept).errors(keep=True)
    np.testing.assert_allclose(found.errors[:, 0, 0], least_norm(X, y, intercept), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
@pytest.mark.parametrize("intercept", [False, True])
def test_all_ways_to_decompose_agree(shape, intercept, monkeypatch):
    X = make_X(*shape, seed=4)
    y = make_y(X, 5, 2)
    alphas = np.geomspace(1e-3, 1e6, 9)
    plain = search(X, y, alphas, None, intercept)
    precise = search(X, y, alphas, None, intercept, precise=True)
    assert len(precise._pencils) == 1
    monkeypatch.setattr(decomposition, "rounding_error", lambda s, penalties, strict: np.ones(len(penalties)))
    by_cholesky = search(X, y, alphas, None, intercept)
    wanted = plain.errors(keep=True)
    # An inverse at the smallest penalty has lost what its matrix is larger than that.
    lost = np.linalg.norm(X - X.mean(axis=0) * intercept, 2) ** 2 / alphas[0]
    for other, tol in ((precise, decomposition.ACCURATE), (by_cholesky, EPS * lost)):
        close(other.errors(keep=True).errors, wanted.errors, tol)
        chosen = np.array([3, 8])
        for got, right in zip(other.coefficients(chosen), plain.coefficients(chosen), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-9, atol=1e-12)
    close(plain.errors(slice(2, 5), keep=True).errors, wanted.errors[:, 2:5], 1e-15)
    exact = Exact(X, y, [alphas[3], alphas[8]], None, intercept)
    np.testing.assert_allclose(plain.coefficients(chosen)[0].T, exact.coef, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("telling", [1e-2, 0.0])
@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (12, 11)])
def test_large_problems_keep_no_gram_matrix(shape, telling, monkeypatch):
    X = make_X(*shape, seed=17)
    y = make_y(X, 18, 2)
    alphas = np.geomspace(1e-2, 1e6, 9)
    wanted = search(X, y, alphas).errors(keep=True)
    monkeypatch.setattr(decomposition, "LARGE", 0)
    monkeypatch.setattr(decomposition, "TELLING", telling)  # 0: the Gram matrix is formed once more for its Cholesky factor
    close(search(X, y, alphas).errors(keep=True).errors, wanted.errors, 1e-9)


@pytest.mark.parametrize("shape", [(900, 600), (610, 600), (600, 900)])
def test_large_problems_take_two_matrices(shape, monkeypatch):
    monkeypatch.setattr(decomposition, "LARGE", 100)
    rng = np.random.default_rng(19)
    X, y = rng.standard_normal(shape), rng.standard_normal(shape[0])
    search(X, y, [1.0, 1e3]).errors()
    tracemalloc.start()
    try:
        search(X, y, [1.0, 1e3]).errors()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.3 * 8 * (min(shape) + 10) ** 2 + 3 * 2**20


@pytest.mark.parametrize("intercept", [False, True])
def test_factors_agree_in_any_order_of_penalties(intercept):
    X = np.random.default_rng(20).standard_normal((600, 900)) + 0.2
    y = make_y(X, 21, 2)
    alphas = np.geomspace(1e-1, 1e4, 6)
    found, wanted = search(X, y, alphas, None, intercept), search(X, y, alphas, None, intercept, precise=True)
    assert found._factors is not None
    chosen = np.array([4, 1])
    np.testing.assert_allclose(found.coefficients(chosen)[0], wanted.coefficients(chosen)[0], rtol=1e-8, atol=1e-11)
    errors = wanted.errors(keep=True).errors
    for some in (slice(3, 6), slice(0, 3), slice(None)):
        close(found.errors(some, keep=True).errors, errors[:, some], 1e-9)


def test_factors_take_one_matrix():
    rng = np.random.default_rng(22)
    X, y = rng.standard_normal((900, 1200)), rng.standard_normal(900)
    search(X, y, [1.0, 1e3]).errors()
    tracemalloc.start()
    try:
        found = search(X, y, [1.0, 1e3])
        found.errors()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found._factors is not None
    assert peak < 1.3 * 8 * 900**2 + 3 * 2**20


def test_factors_give_way_where_they_lack_digits():
    X = make_X(600, 900, seed=23)
    X[1] = X[0]
    found = search(X, make_y(X, 24), [1e-9, 1.0])
    assert found._factors is None
    assert np.isfinite(found.errors().sq_sums).all()


@pytest.mark.parametrize("least", [factors.MIN_SIZE, 1])
@pytest.mark.parametrize("n", [30, 4])
@pytest.mark.parametrize("d", ["weights", "unpenalised", "matrix", "singular matrix", "fixed"])
def test_penalty_weights(d, n, least, monkeypatch):
    monkeypatch.setattr(factors, "MIN_SIZE", least)
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, 5)) + 1
    y = make_y(X, 8)
    B = rng.standard_normal((5, 4))
    D = {
        "weights": np.diag([1e-2, 0.3, 1, 2, 50]),
        "unpenalised": np.diag([0.0, 1, 2, 1, 3]),
        "matrix": B @ B.T + np.eye(5),
        "singular matrix": B @ B.T,
        "fixed": np.diag([1, 1, 1e14, 1, 1]),
    }[d]
    given = D if "matrix" in d else D.diagonal().copy()
    if d == "fixed":
        given[2] = np.inf
    found = search(X, y, ALPHAS[1:], None, True, given).errors(keep=True)
    for j, alpha in enumerate(ALPHAS[1:]):
        for i in range(n):
            o = np.arange(n) != i
            A, t = X[o] - X[o].mean(axis=0), y[o] - y[o].mean()
            w = np.linalg.solve(A.T @ A + alpha * D, A.T @ t)
            error = y[i] - y[o].mean() - (X[i] - X[o].mean(axis=0)) @ w
            np.testing.assert_allclose(found.errors[i, j, 0], error, rtol=1e-8, atol=1e-8)


def test_an_unpenalised_column_that_one_row_alone_has():
    """Its coefficient is zero for the model that has not seen that row"""
    rng = np.random.default_rng(9)
    X = np.hstack([rng.standard_normal((40, 3)), np.eye(40)[:, [6]]])
    y = make_y(X, 10)
    found = search(X, y, [0.5], None, True, np.array([1.0, 1, 1, 0])).errors(keep=True).errors[:, 0, 0]
    others = np.arange(40) != 6
    without = Exact(X[others, :3], y[others], 0.5)
    np.testing.assert_allclose(found[6], y[6] - X[6, :3] @ without.coef[0] - without.intercept[0], rtol=1e-9)
    np.testing.assert_allclose(
        found[others], search(X[others, :3], y[others], [0.5]).errors(keep=True).errors[:, 0, 0], rtol=1e-9
    )


def test_weights_are_repetitions_of_rows_that_are_left_out_alone():
    """A row of weight 2 counts as one row: the model that has not seen it has seen neither copy"""
    X = make_X(12, 4, seed=11)
    y = make_y(X, 12)
    weights = np.ones(12)
    weights[3] = 2.0
    judge(X, y, ALPHAS, weights)


@pytest.mark.parametrize("power", [-300, -60, 40, 300])
def test_sizes_beyond_the_squares_of_float64(power):
    X, scale = make_X(20, 4, seed=13), 2.0**power
    y = make_y(X, 14, 2)
    wanted = search(X, y, [0.5, 20.0]).errors(keep=True)
    alphas = np.array([0.5, 20.0])
    close(search(X * scale, y, alphas * scale**2).errors(keep=True).errors, wanted.errors, 1e-10)
    found = search(X, y * scale, alphas).errors(keep=True)
    close(found.errors / scale, wanted.errors, 1e-10)
    if abs(power) < 100:
        np.testing.assert_allclose(found.sq_sums / scale**2, wanted.sq_sums, rtol=1e-10)
    weights = np.full(20, scale**2)
    close(search(X, y, alphas * scale**2, weights).errors(keep=True).errors / scale, wanted.errors, 1e-10)


def test_what_the_memory_does_not_hold_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr(costs, "physical_memory", lambda: 1e3)
    X = np.ones((30, 40))
    with pytest.raises(MemoryError, match=r"30 samples x 40 features take 2 matrices .*cv=5"):
        search(X, X[:, 0], ALPHAS)


def test_exact_fractions():
    """Four rows, one feature and an intercept, in rational numbers"""
    x, y = [Fraction(v) for v in (1, 2, 4, 7)], [Fraction(v) for v in (1, 3, 2, 5)]
    alpha, wanted = Fraction(3, 2), []
    for i in range(4):
        xs, ys = [v for j, v in enumerate(x) if j != i], [v for j, v in enumerate(y) if j != i]
        mx, my = sum(xs) / 3, sum(ys) / 3
        w = sum((a - mx) * (b - my) for a, b in zip(xs, ys, strict=True)) / (sum((a - mx) ** 2 for a in xs) + alpha)
        wanted.append(float(y[i] - my - w * (x[i] - mx)))
    X = np.array([[1.0], [2], [4], [7]])
    found = search(X, np.array([1.0, 3, 2, 5]), [1.5]).errors(keep=True)
    np.testing.assert_allclose(found.errors[:, 0, 0], wanted, rtol=1e-14)


def test_the_same_bits_for_any_number_of_threads():
    for shape in ((3000, 40), (40, 3000)):
        X = make_X(*shape, seed=15)
        y = make_y(X, 16, 2)
        one, two = (search(X, y, ALPHAS, n_threads=n).errors(keep=True) for n in (1, 2))
        assert (one.errors == two.errors).all()
        assert (one.sq_sums == two.sq_sums).all()
