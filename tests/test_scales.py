"""Penalties of other packages: their own objectives, minimised as they document them, and numbers they have printed."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import sklearn.linear_model
from helpers import make_weights
from scipy.optimize import minimize
from sklearn.svm import LinearSVR

import fastridge
from fastridge import Ridge, ridge

rng = np.random.default_rng(301)
N, P = 40, 3
X = rng.standard_normal((N, P)) * [0.5, 1.0, 3.0] + [0.0, 2.0, -1.0]
Y = 7 * (X @ [1.0, -2.0, 0.5] + rng.standard_normal(N)) + 20
WEIGHTS = make_weights(N, 302)

weighted = pytest.mark.parametrize("s", [None, WEIGHTS], ids=["no weights", "weights"])
intercept = pytest.mark.parametrize("intercept", [True, False])


def minimum(objective):
    """Minimise objective(w, b) in w and b by a general method: (P + 1,)"""
    found = minimize(lambda v: objective(v[:-1], v[-1]), np.zeros(P + 1), method="BFGS", options={"gtol": 1e-9})
    return found.x


def deviations(x, s=None, unbiased=False):
    """Standard deviations (columns of) x, written out: squares over n, or over n - sum s^2 / n"""
    s = np.ones(len(x)) if s is None else s
    n = s.sum()
    mean = sum(si * xi for si, xi in zip(s, x, strict=True)) / n
    squares = sum(si * (xi - mean) ** 2 for si, xi in zip(s, x, strict=True))
    return np.sqrt(squares / (n - (s**2).sum() / n if unbiased else n))


def solve(alpha, s=None, intercept=True, scale=1.0):
    """Our coefficients and intercept, (P + 1,), of the columns of X divided by scale, for X itself"""
    found = ridge(X / scale, Y, float(alpha), sample_weight=s, fit_intercept=intercept, tol=1e-10, solver="svd")
    return np.append(found.coef / scale, found.intercept)


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@weighted
@intercept
def test_mean_loss(intercept, s):
    lambda_, weights = 0.2, np.ones(N) if s is None else s
    m = weights.sum()
    theirs = minimum(lambda w, b: weights @ (Y - X @ w - intercept * b) ** 2 / m + lambda_ * w @ w)
    same(solve(fastridge.alpha_from_mean_loss(lambda_, m), s, intercept), theirs * ([1] * P + [intercept]))


@pytest.mark.filterwarnings("ignore:Coordinate descent")
def test_mean_loss_is_elastic_net_without_its_lasso():
    theirs = sklearn.linear_model.ElasticNet(alpha=0.2, l1_ratio=0, tol=1e-12, max_iter=100_000).fit(X, Y)
    same(solve(fastridge.alpha_from_mean_loss(0.2, N)), np.append(theirs.coef_, theirs.intercept_))


@weighted
@intercept
@pytest.mark.parametrize("standardize", [True, False])
def test_glmnet(standardize, intercept, s):
    """What the vignette describes: y (and X) scaled with 1/n, solved there, coefficients scaled back"""
    lambda_, weights = 1.5, np.ones(N) if s is None else s
    sd, scale = deviations(Y, s), deviations(X, s) if standardize else np.ones(P)
    shares = weights / weights.sum()
    v = minimum(lambda w, b: shares @ (Y / sd - X / scale @ w - intercept * b) ** 2 / 2 + lambda_ / sd / 2 * w @ w)
    theirs = np.append(sd * v[:-1] / scale, sd * v[-1] * intercept)
    alpha = fastridge.alpha_from_glmnet(lambda_, Y, s)
    same(solve(alpha, s, intercept, scale), theirs)
    same(fastridge.alpha_to_glmnet(alpha, Y, s), lambda_)


A = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, 11.0], [3.0, 13.0]])
B = np.array([17.0, 19.0, 23.0, 29.0])
COUNTS = np.array([1.0, 2.0, 3.0, 4.0])
# intercept, lambda, standardize, weights: coef() of glmnet(A, B, weights, intercept=, lambda=, standardize=, alpha=0), the
# intercept first. R's output as quoted in Spark's WeightedLeastSquaresSuite.scala (thresh=1e-14), where Spark's "normal" solver
# is held to it as well; the last one is from the review of Spark's pull request 10274 (thresh=1e-20).
PRINTED = [
    (False, 0.1, False, COUNTS, (0.0, -3.307532, 2.924206)),
    (False, 0.1, True, COUNTS, (0.0, -2.914790, 2.840627)),
    (False, 1.0, False, COUNTS, (0.0, -1.526575, 2.558158)),
    (False, 1.0, True, COUNTS, (0.0, 0.06984238, 2.20488344)),
    (True, 0.1, False, COUNTS, (13.5356178, 3.2714044, 0.3770744)),
    (True, 0.1, True, COUNTS, (14.064629, 3.565802, 0.269593)),
    (True, 1.0, False, COUNTS, (10.1238013, 0.9708569, 1.1475466)),
    (True, 1.0, True, COUNTS, (13.1860638, 2.1761382, 0.6213134)),
    (True, 0.1, False, None, (13.1018870, 2.2362361, 0.6159732)),
]


@pytest.mark.parametrize("convert", [fastridge.alpha_from_glmnet, fastridge.alpha_from_spark])
@pytest.mark.parametrize(("intercept", "lambda_", "standardize", "s", "printed"), PRINTED)
def test_printed_by_glmnet(intercept, lambda_, standardize, s, printed, convert):
    scale = deviations(A, s) if standardize else np.ones(2)
    found = ridge(A / scale, B, float(convert(lambda_, B, s)), sample_weight=s, fit_intercept=intercept)
    np.testing.assert_allclose([found.intercept, *(found.coef / scale)], printed, atol=2e-5)  # glmnet's own accuracy


@weighted
@intercept
@pytest.mark.parametrize("standardization", [True, False])
@pytest.mark.parametrize("solver", ["normal", "l-bfgs"])
def test_spark(solver, standardization, intercept, s):
    """Both solvers work on standardised columns and label, and without standardization weigh the penalties back"""
    reg_param, weights = 1.5, np.ones(N) if s is None else s
    sd, scale = deviations(Y, s, solver == "l-bfgs"), deviations(X, s, solver == "l-bfgs")
    back = np.ones(P) if standardization else 1 / scale**2
    shares = weights / weights.sum()
    v = minimum(lambda w, b: shares @ (Y / sd - X / scale @ w - intercept * b) ** 2 / 2 + reg_param / sd / 2 * back @ w**2)
    theirs = np.append(sd * v[:-1] / scale, sd * v[-1] * intercept)
    alpha = fastridge.alpha_from_spark(reg_param, Y, s, solver=solver)
    same(solve(alpha, s, intercept, scale if standardization else 1.0), theirs)
    same(fastridge.alpha_to_spark(alpha, Y, s, solver=solver), reg_param)


@weighted
@pytest.mark.parametrize("C", [0.01, 2.0])
def test_liblinear(C, s):
    options = {"loss": "squared_epsilon_insensitive", "dual": False, "tol": 1e-10, "max_iter": 100_000}
    theirs = LinearSVR(epsilon=0, C=C, fit_intercept=False, **options).fit(X, Y, s)
    same(solve(fastridge.alpha_from_C(C), s, intercept=False)[:-1], theirs.coef_)
    weights = np.ones(N) if s is None else s
    documented = minimum(lambda w, b: w @ w / 2 + C * weights @ (Y - X @ w) ** 2 + b**2)
    same(theirs.coef_, documented[:-1])


def test_the_bias_of_liblinear_is_a_penalised_column():
    theirs = LinearSVR(
        epsilon=0, C=0.1, loss="squared_epsilon_insensitive", dual=False, tol=1e-10, intercept_scaling=5, max_iter=100_000
    ).fit(X, Y)
    bias = np.full((N, 1), 5.0)
    ours = Ridge(fastridge.alpha_from_C(0.1), fit_intercept=False, tol=1e-10).fit(np.hstack([X, bias]), Y)
    same(ours.coef_ * [1, 1, 1, 5], np.append(theirs.coef_, theirs.intercept_))


CONVERTERS = {"mean_loss": (N,), "glmnet": (Y,), "spark": (Y, WEIGHTS), "C": ()}


@pytest.mark.parametrize("scale", CONVERTERS)
def test_there_and_back_numbers_and_arrays(scale):
    forth, back = (getattr(fastridge, f"alpha_{way}_{scale}") for way in ("from", "to"))
    grid = np.logspace(-3, 3, 7)
    np.testing.assert_allclose(back(forth(grid, *CONVERTERS[scale]), *CONVERTERS[scale]), grid)
    assert isinstance(back(forth(2, *CONVERTERS[scale]), *CONVERTERS[scale]), float)
    assert forth(grid, *CONVERTERS[scale])[0] == forth(grid[0], *CONVERTERS[scale])


@pytest.mark.parametrize("scale", CONVERTERS)
@pytest.mark.parametrize("way", ["from", "to"])
@pytest.mark.parametrize("value", [-1.0, np.nan, [1.0, np.inf]])
def test_a_bad_penalty(value, way, scale):
    with pytest.raises(ValueError, match="must be finite and not negative"):
        getattr(fastridge, f"alpha_{way}_{scale}")(value, *CONVERTERS[scale])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastridge.alpha_from_C(0), "C must be positive"),
        (lambda: fastridge.alpha_to_C(0), "alpha must be positive"),
        (lambda: fastridge.alpha_from_mean_loss(1, 0), "n must be positive"),
        (lambda: fastridge.alpha_from_glmnet(1, np.full(5, 0.1)), "y is constant"),
        (lambda: fastridge.alpha_from_glmnet(1, [1, 1, 2], [1, 1, 0]), "y is constant"),
        (lambda: fastridge.alpha_from_glmnet(1, Y[:, None]), "y must be one target"),
        (lambda: fastridge.alpha_from_glmnet(1, [1, np.nan]), "y contains NaN"),
        (lambda: fastridge.alpha_from_glmnet(1, Y, [1, 2]), "sample_weight must be a number or of shape"),
        (lambda: fastridge.alpha_from_spark(1, Y, solver="auto"), "solver must be one of 'normal', 'l-bfgs', got 'auto'"),
    ],
)
def test_what_cannot_be_converted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_examples_of_the_page():
    page = Path(__file__).parents[1] / "docs" / "penalties.md"
    failed, attempted = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert attempted > 10
