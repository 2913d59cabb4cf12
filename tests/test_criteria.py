"""GCV, AIC, BIC and evidence against their definitions, by dense matrices and in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import STORAGES, make_weights, make_X, make_y
from scipy.linalg import eigh, qr
from scipy.stats import multivariate_normal
from truth import fractions, solve_fractions

from fastridge import RidgeClassifierCV, RidgeCV, rows, scan
from fastridge.selection import decomposition, streams

CRITERIA = ["gcv", "aic", "bic", "evidence"]
ALPHAS = np.geomspace(1e-3, 1e4, 8)
edges = pytest.mark.filterwarnings("ignore:the best alpha is")


def values(n, sq, df):
    """Negative GCV, AIC and BIC"""
    return {
        "gcv": -n * sq / (n - df) ** 2,
        "aic": -n * np.log(sq / n) - 2 * df,
        "bic": -n * np.log(sq / n) - np.log(n) * df,
    }


def by_definition(X, y, alphas, weights=None, intercept=True, D=None):
    """All criteria of one target from the hat matrix and the normal density of contrasts, dict of (a,)"""
    s = np.ones(len(X)) if weights is None else weights
    X, y, s = X[s > 0].astype(np.float64), y[s > 0], s[s > 0]
    D = np.eye(X.shape[1]) if D is None else D
    held = np.isinf(D.diagonal())
    X, D = X[:, ~held], D[np.ix_(~held, ~held)]
    n, root = len(X), np.sqrt(s)
    G = root[:, None] * (np.hstack([np.ones((n, 1)), X]) if intercept else X)
    P = np.zeros((G.shape[1],) * 2)
    P[intercept:, intercept:] = D
    values_D, vectors = eigh(P)
    flat = values_D < 1e-12 * max(1.0, values_D.max())
    F, pulled = G @ vectors[:, flat], G @ (vectors[:, ~flat] / np.sqrt(values_D[~flat]))
    rank = np.linalg.matrix_rank(F) if F.size else 0
    contrasts = qr(F, pivoting=True)[0][:, rank:] if F.size else np.eye(n)
    out = {name: [] for name in CRITERIA}
    for alpha in alphas:
        hat = G @ np.linalg.lstsq(G.T @ G + alpha * P, G.T, rcond=1e-14)[0]
        rest = root * y - hat @ (root * y)
        for name, value in values(n, rest @ rest, np.trace(hat)).items():
            out[name].append(value)
        K = contrasts.T @ pulled @ pulled.T @ contrasts / alpha
        t = contrasts.T @ (root * y)
        covariance = np.eye(len(t)) + K
        sigma2 = t @ np.linalg.solve(covariance, t) / len(t)
        log_density = multivariate_normal(cov=sigma2 * covariance).logpdf(t)
        out["evidence"].append(log_density + np.log(s).sum() / 2)
    return {name: np.array(found) for name, found in out.items()}


def fitted(X, y, name, alphas=ALPHAS, weights=None, **options):
    return RidgeCV(alphas, scoring=name, **options).fit(X, y, weights)


@edges
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("weighted", [None, "weights", "zeros"])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("shape", [(40, 6), (9, 25), (14, 12), (3, 1)])
def test_against_the_definitions(shape, intercept, weighted, name):
    X = make_X(*shape, seed=1)
    y = make_y(X, 2)
    weights = None if weighted is None else make_weights(shape[0], 3, zeros=weighted == "zeros")
    model = fitted(X, y, name, weights=weights, fit_intercept=intercept)
    wanted = by_definition(X, y, ALPHAS, weights, intercept)[name]
    np.testing.assert_allclose(model.scores_, wanted, rtol=1e-7, atol=1e-7)
    assert model.alpha_ == ALPHAS[np.argmax(wanted)]
    assert model.choice_.standard_errors is None
    assert model.choice_.indistinguishable is None
    assert model.report_.converged


@edges
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("n", [30, 6])
@pytest.mark.parametrize("d", ["weights", "unpenalised", "matrix", "singular matrix", "fixed"])
def test_penalty_weights(d, n, name):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((n, 5)) + 1
    y, B = make_y(X, 5), rng.standard_normal((5, 4))
    D = {
        "weights": np.diag([1e-2, 0.3, 1, 2, 50]),
        "unpenalised": np.diag([0.0, 1, 2, 1, 0]),
        "matrix": B @ B.T + np.eye(5),
        "singular matrix": B @ B.T,
        "fixed": np.diag([1, 1, np.inf, 1, 1]),
    }[d]
    given = D if "matrix" in d else D.diagonal().copy()
    weights = make_weights(n, 6)
    model = fitted(X, y, name, weights=weights, penalty_weights=given)
    np.testing.assert_allclose(model.scores_, by_definition(X, y, ALPHAS, weights, True, D)[name], rtol=1e-8, atol=1e-8)


@edges
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("storage", ["F", "csr_array", "csc_array", "float32"])
@pytest.mark.parametrize("shape", [(40, 6), (9, 25)])
def test_storages_and_targets(shape, storage, name):
    X = make_X(*shape, seed=7, dtype=np.float32)
    y = make_y(X, 8, 3)
    given = X if storage == "float32" else STORAGES[storage](X.astype(np.float64))
    wanted = np.stack([by_definition(X, y[:, j], ALPHAS)[name] for j in range(3)], axis=1)
    model = fitted(given, y, name)
    np.testing.assert_allclose(model.scores_, wanted.mean(axis=1), rtol=1e-8)
    each = fitted(given, y, name, alpha_per_target=True)
    np.testing.assert_allclose(each.scores_, wanted, rtol=1e-8)
    np.testing.assert_array_equal(each.alpha_, ALPHAS[wanted.argmax(axis=0)])
    assert each.choice_.best.shape == (3,)


@edges
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("shape", [(60, 7), (8, 30)])
def test_all_ways_to_decompose_agree(shape, name, monkeypatch):
    X = make_X(*shape, seed=9)
    y = make_y(X, 10, 2)
    wanted = fitted(X, y, name).scores_
    np.testing.assert_allclose(fitted(X, y, name, gcv_mode="svd").scores_, wanted, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(decomposition, "rounding_error", lambda s, penalties, strict: np.where(penalties < 1e2, 1.0, 0.0))
    calls, by_cholesky = [], decomposition._by_cholesky
    monkeypatch.setattr(decomposition, "_by_cholesky", lambda *a: calls.append(1) or by_cholesky(*a))
    np.testing.assert_allclose(fitted(X, y, name).scores_, wanted, rtol=1e-9, atol=1e-9)
    assert calls


def in_fractions(X, y, alpha):
    """RSS, Q, df, det(I + K / alpha) of centred data without a penalty on the intercept, in exact arithmetic, and n"""
    X, y = fractions(X), fractions(y)
    n, p = X.shape
    A, t = X - X.sum(axis=0) / n, y - y.sum() / n
    H = A.T @ A + np.diag([Fraction(float(alpha))] * p)
    w = solve_fractions(H.copy(), A.T @ t)
    rest = t - A @ w
    solved = np.column_stack([solve_fractions(H.copy(), column) for column in (A.T @ A).T])
    det, M = Fraction(1), H.copy()
    for j in range(p):
        det *= M[j, j] / Fraction(float(alpha))
        for i in range(j + 1, p):
            M[i] = M[i] - M[j] * (M[i, j] / M[j, j])
    sq = rest @ rest
    return float(sq), float(sq + Fraction(float(alpha)) * (w @ w)), 1 + float(np.trace(solved)), det, n


def log_of(x):
    """Of a fraction whose parts may be too large for a float"""
    return np.log(2.0) * (x.numerator.bit_length() - x.denominator.bit_length()) + np.log(
        float(x / Fraction(2) ** (x.numerator.bit_length() - x.denominator.bit_length()))
    )


@edges
@pytest.mark.parametrize("how", ["memory", "scan"])
@pytest.mark.parametrize("noise", [1.0, 1e-6])
@pytest.mark.parametrize("columns", ["alike", "of all sizes", "dependent"])
def test_digits(columns, noise, how):
    """R2 down to 1 - 1e-12, columns over eight decades, rank deficient, penalties down to nothing: in exact arithmetic"""
    rng = np.random.default_rng(11)
    X = rng.standard_normal((24, 4)) + 3
    if columns == "of all sizes":
        X *= [1e4, 1.0, 1e-2, 1e-4]
    if columns == "dependent":
        X = np.round(X * 64) / 64
        X[:, 3] = X[:, 0] + X[:, 1]
    y = (X - X.mean(axis=0)) @ (1 / X.std(axis=0)) + noise * rng.standard_normal(24)
    alphas = np.array([1e-10 if columns == "of all sizes" else 1e-14, 1e-8, 1e-6, 1e-3, 1.0, 1e3])
    found = [in_fractions(X, y, alpha) for alpha in alphas]
    wanted = {name: [] for name in CRITERIA}
    for sq, sq_whole, df, det, n in found:
        for name, value in values(n, sq, df).items():
            wanted[name].append(value)
        wanted["evidence"].append(-((n - 1) * (np.log(2 * np.pi * sq_whole / (n - 1)) + 1) + log_of(det)) / 2)
    assert noise == 1.0 or columns == "of all sizes" or found[0][0] < 1e-11 * np.square(y - y.mean()).sum()
    for name in CRITERIA:
        model = fitted(X, y, name, alphas) if how == "memory" else fitted(scan(X, target=y), None, name, alphas)
        np.testing.assert_allclose(model.scores_, wanted[name], rtol=1e-6, err_msg=name)


@edges
@pytest.mark.filterwarnings("ignore:.* reached an H-norm error:sklearn.exceptions.ConvergenceWarning")
def test_the_limit_of_gcv_where_nothing_is_left():
    """Wide: RSS and (n - df)^2 vanish together"""
    rng = np.random.default_rng(12)
    X, y = rng.standard_normal((10, 30)), rng.standard_normal(10)
    weights = np.ones(12)
    weights[10:] = 0.0
    more = np.vstack([X, rng.standard_normal((2, 30))])
    A = X - X.mean(axis=0)
    inverse = np.linalg.pinv(A @ A.T)
    z = inverse @ (y - y.mean())
    for alpha in (1e-8, 1e-30, 1e-200):
        wanted = -10 * (z @ z) / np.trace(inverse) ** 2
        assert fitted(X, y, "gcv", [alpha]).scores_[0] == pytest.approx(wanted, rel=1e-6)
        assert fitted(more, np.append(y, [5.0, 6.0]), "gcv", [alpha], weights).scores_[0] == pytest.approx(wanted, rel=1e-6)


@edges
@pytest.mark.filterwarnings("ignore:.* reached an H-norm error:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
def test_penalties_below_what_float64_tells_from_zero(shape, name):
    """They count as 1e-20 of the largest eigenvalue"""
    X = make_X(*shape, seed=13)
    scores = fitted(X, make_y(X, 14), name, [1e-200, 1e-100, 1e-40]).scores_
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, scores[0], rtol=1e-14)


@edges
@pytest.mark.parametrize("power", [-250, 250])
@pytest.mark.parametrize("name", CRITERIA)
def test_units(name, power):
    """X, y and weights times powers of two"""
    X, scale = make_X(30, 5, seed=15), 2.0**power
    y, weights = make_y(X, 16), make_weights(30, 17)
    wanted = fitted(X, y, name, weights=weights).scores_
    np.testing.assert_allclose(fitted(X * scale, y, name, ALPHAS * scale**2, weights).scores_, wanted, rtol=1e-9)
    moved = {"gcv": 0.0, "evidence": -29 * np.log(scale)}.get(name, -60 * np.log(scale))
    found = fitted(X, y * scale, name, weights=weights).scores_
    if name == "gcv":
        np.testing.assert_allclose(found, wanted * scale**2, rtol=1e-9)
    else:
        np.testing.assert_allclose(found, wanted + moved, rtol=1e-9)


@edges
@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"penalty_weights": np.arange(1.0, 8.0)}], ids=str)
def test_scans(options, weighted, name, store, monkeypatch):
    """From the Gram matrix: one pass for it, one for the proof"""
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(streams, "_sq_residual", pytest.fail)
    X = make_X(300, 7, seed=18)
    y = make_y(X, 19, 2)
    y += 3 * np.random.default_rng(20).standard_normal(y.shape) * y.std(axis=0)
    weights = make_weights(300, 21, zeros=True) if weighted else None
    found = fitted(scan(store(X), target=y, weight=weights), None, name, alpha_per_target=True, **options)
    wanted = fitted(X, y, name, weights=weights, alpha_per_target=True, **options)
    np.testing.assert_allclose(found.scores_, wanted.scores_, rtol=1e-9)
    np.testing.assert_array_equal(found.alpha_, wanted.alpha_)
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-5, atol=1e-7)
    assert found.report_.converged


@edges
def test_rows_of_a_scan_are_read_twice():
    X = make_X(400, 8, seed=22)
    y, passes = make_y(X, 23) + 100 * np.random.default_rng(24).standard_normal(400), []

    def blocks():
        passes.append(0)
        yield X, y

    RidgeCV([0.1, 1.0, 10.0], scoring="gcv").fit(scan(blocks))
    assert len(passes) - 1 <= 2  # sums and the proof; one more sees the first block


@edges
def test_classes():
    X = make_X(80, 5, seed=25)
    y = make_y(X, 26)
    labels = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
    model = RidgeClassifierCV(ALPHAS, scoring="bic").fit(X, labels)
    codes = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    wanted = np.mean([by_definition(X, codes[:, j], ALPHAS)["bic"] for j in range(3)], axis=0)
    np.testing.assert_allclose(model.scores_, wanted, rtol=1e-9)
    np.testing.assert_allclose(RidgeClassifierCV(ALPHAS, scoring="bic").fit(scan(X, target=labels)).scores_, wanted, rtol=1e-9)


def test_a_grid_that_suits_the_data():
    """The best lies inside, whatever the units of y"""
    rng = np.random.default_rng(27)
    X = rng.standard_normal((200, 10))
    y = X @ rng.standard_normal(10) + 5 * rng.standard_normal(200)
    for name in CRITERIA:
        alphas = [fitted(X, y * scale, name, "auto").alpha_ for scale in (1e-3, 1.0, 1e5)]  # warnings are errors
        assert alphas[0] == pytest.approx(alphas[1]) == pytest.approx(alphas[2])
        assert 1 < alphas[0] < 1000


@edges
def test_targets_that_are_met_exactly():
    X = make_X(20, 3, seed=28)
    for name in CRITERIA:
        model = fitted(X, np.full(20, 3.0), name)
        np.testing.assert_allclose(model.coef_, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 3}, "scoring='gcv' is a criterion of the fit to all rows: it takes cv=None, got 3"),
        ({"store_cv_results": True}, "scoring='gcv' has no results of rows"),
        ({"rule": "one_standard_error"}, "needs standard errors, and with scoring='gcv'"),
    ],
)
def test_what_does_not_go_together(options, message):
    X = make_X(20, 3, seed=29)
    with pytest.raises(ValueError, match=message):
        fitted(X, X[:, 0], "gcv", **options)


@pytest.mark.parametrize("n", [1, 2])
def test_rows_that_the_unpenalised_fit(n):
    X, y = np.arange(2.0 * n).reshape(n, 2) ** 2, np.arange(n) + 1.0
    with pytest.raises(ValueError, match=f"n_samples = {n}, of which they fit {n}"):
        fitted(X, y, "aic", penalty_weights=[0.0, 1.0])
    if n == 1:
        with pytest.raises(ValueError, match="n_samples = 1, of which they fit 1"):
            fitted(scan(X, target=y), None, "aic")
