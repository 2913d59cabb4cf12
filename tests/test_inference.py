"""Degrees of freedom, standard errors, intervals and spreads, against the formulas with every matrix written out."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import binom

from fastridge.inference import COVARIANCES, Inference, effective_df
from fastridge.planning import costs


class Plain:
    """The same figures from dense matrices of the problem with its intercept as an unpenalised column"""

    def __init__(self, X, y, alpha, weights=None, intercept=True):
        n, p = X.shape
        s = np.ones(n) if weights is None else weights
        self.used = s > 0
        Z = np.column_stack([X, np.ones(n)]) if intercept else X
        D = np.diag(np.r_[np.full(p, alpha), np.zeros(int(intercept))])
        root = np.sqrt(s)
        self.B = root[:, None] * Z
        self.inverse = np.linalg.inv(self.B.T @ self.B + D)
        to_coef = self.inverse @ self.B.T
        self.hat = self.B @ to_coef
        self.to_coef, self.p = to_coef, p
        self.theta = to_coef @ (root * y)
        self.residual = root * y - self.B @ self.theta
        rest = np.eye(n) - self.hat
        self.residual_df = np.trace(rest @ rest.T) - (~self.used).sum()
        self.sigma2 = self.residual @ self.residual / self.residual_df
        H = self.B.T @ self.B + D
        self.mean_map = np.linalg.solve(H, self.B.T @ self.B)

    def standard_errors(self, covariance):
        h, n = np.diag(self.hat), self.used.sum()
        sq = self.residual**2
        with np.errstate(divide="ignore"):
            noise = {
                "model": np.full(len(sq), self.sigma2),
                "HC0": sq,
                "HC1": sq * n / (n - np.trace(self.hat)),
                "HC2": sq / (1 - h),
                "HC3": sq / (1 - h) ** 2,
            }[covariance]
        return np.sqrt(self.to_coef**2 @ noise)

    def spread(self, X, intercept, noise):
        Z = np.column_stack([X, np.ones(len(X))]) if intercept else X
        return np.sqrt(self.sigma2 * (np.einsum("ij,jk,ik->i", Z, self.inverse, Z) + noise))


def make(n, p, seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, p)) + 2) * rng.uniform(0.5, 2, p)
    X *= rng.random((n, p)) < 0.7
    y = X[:, :3].sum(axis=1) + rng.standard_normal(n) * (1 + X[:, 0] ** 2)
    weights = rng.uniform(0.2, 3, n) * (rng.random(n) < 0.9) if weighted else None
    return X, y, weights


@pytest.mark.parametrize("store", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, sp.csc_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [0.3, 30.0])
@pytest.mark.parametrize("shape", [(40, 7), (12, 30)])
def test_every_figure_is_that_of_the_formulas(shape, alpha, weighted, intercept, store):
    X, y, weights = make(*shape, weighted=weighted)
    plain = Plain(X, y, alpha, weights, intercept)
    found = Inference(store(X), y, alpha, sample_weight=weights, fit_intercept=intercept, tol=1e-10)
    close = {"rtol": 1e-7, "atol": 1e-10}  # tol of the fit; the condition is below 1e4
    np.testing.assert_allclose(found.effective_df, np.trace(plain.hat), **close)
    np.testing.assert_allclose(found.residual_df, plain.residual_df, **close)
    np.testing.assert_allclose(found.sigma2, plain.sigma2, **close)
    np.testing.assert_allclose(found.leverages, np.diag(plain.hat), **close)
    np.testing.assert_allclose(found.shrinkage, np.diag(plain.mean_map)[: X.shape[1]], **close)
    for covariance in COVARIANCES:
        expected = plain.standard_errors(covariance)
        np.testing.assert_allclose(found.standard_errors(covariance), expected[: X.shape[1]], **close)
        own = found.intercept_standard_error(covariance)
        np.testing.assert_allclose(own, expected[X.shape[1]] if intercept else 0.0, **close)
    new = make(70, shape[1], seed=1)[0]
    for of in ("observation", "mean"):
        mean, std = found.predict(store(new), return_std=True, of=of)
        np.testing.assert_allclose(mean, new @ plain.theta[: X.shape[1]] + (plain.theta[-1] if intercept else 0), rtol=1e-6)
        np.testing.assert_allclose(std, plain.spread(new, intercept, of == "observation"), **close)


@pytest.mark.parametrize("shape", [(40, 7), (12, 30)])
def test_targets_are_those_of_single_fits(shape):
    X, y, _ = make(*shape)
    Y = np.column_stack([y, np.cos(y)])
    both = Inference(X, Y, 2.0)
    new = make(5, shape[1], seed=2)[0]
    for j in range(2):
        one = Inference(X, Y[:, j], 2.0)
        np.testing.assert_allclose(both.sigma2[j], one.sigma2, rtol=1e-6)
        for covariance in ("model", "HC3"):
            np.testing.assert_allclose(both.standard_errors(covariance)[j], one.standard_errors(covariance), rtol=1e-6)
            np.testing.assert_allclose(
                both.intercept_standard_error(covariance)[j], one.intercept_standard_error(covariance), rtol=1e-6
            )
            np.testing.assert_allclose(
                both.confidence_intervals(0.9, covariance)[j], one.confidence_intervals(0.9, covariance), rtol=1e-5
            )
        np.testing.assert_allclose(both.predict(new, return_std=True)[1][:, j], one.predict(new, return_std=True)[1], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_without_a_penalty_statsmodels_agrees(weighted):
    api = pytest.importorskip("statsmodels.api")
    X, y, weights = make(60, 5, weighted=weighted)
    used = np.ones(60, dtype=bool) if weights is None else weights > 0
    theirs = api.WLS(y[used], api.add_constant(X[used]), 1.0 if weights is None else weights[used]).fit()
    ours = Inference(X, y, 0.0, sample_weight=weights)
    np.testing.assert_allclose(ours.coef, theirs.params[1:], rtol=1e-9)
    np.testing.assert_allclose(ours.sigma2, theirs.scale, rtol=1e-9)
    np.testing.assert_allclose(ours.residual_df, theirs.df_resid, rtol=1e-9)
    np.testing.assert_allclose(ours.confidence_intervals(0.9), theirs.conf_int(0.1)[1:], rtol=1e-7, atol=1e-9)
    for covariance in COVARIANCES:
        expected = theirs.bse if covariance == "model" else getattr(theirs, f"{covariance}_se")
        np.testing.assert_allclose(ours.standard_errors(covariance), expected[1:], rtol=1e-9)
        np.testing.assert_allclose(ours.intercept_standard_error(covariance), expected[0], rtol=1e-9)
    np.testing.assert_allclose(ours.shrinkage, 1.0)


@pytest.mark.parametrize("shape", [(40, 6), (30, 60)])
@pytest.mark.parametrize("covariance", ["model", "HC3"])
def test_intervals_hold_the_mean_of_estimates_as_often_as_they_say(shape, covariance):
    n, p = shape
    rng = np.random.default_rng(3)
    X = rng.standard_normal(shape) + 1
    w, alpha, n_draws = rng.standard_normal(p), 20.0, 300
    A = X - X.mean(axis=0)
    mean = np.linalg.solve(A.T @ A + alpha * np.eye(p), A.T @ (A @ w))
    held = 0
    for _ in range(n_draws):
        intervals = Inference(X, X @ w + rng.standard_normal(n), alpha).confidence_intervals(0.9, covariance)
        held += int((intervals[0, 0] <= mean[0]) and (mean[0] <= intervals[0, 1]))
    # Residuals hold some of the bias, which widens intervals; so the upper end is open.
    assert held >= binom.ppf(1e-4, n_draws, 0.9)


def test_spreads_hold_new_observations_where_the_prior_is_true():
    n, p, alpha, n_draws, sigma = 50, 8, 4.0, 300, 0.7
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(n_draws):
        X = rng.standard_normal((n + 1, p))
        y = X @ (sigma / np.sqrt(alpha) * rng.standard_normal(p)) + sigma * rng.standard_normal(n + 1) + 3
        mean, std = Inference(X[:n], y[:n], alpha).predict(X[n:], return_std=True)
        inside += int(abs(mean[0] - y[n]) <= std[0])
    assert binom.ppf(1e-4, n_draws, 0.64) <= inside <= binom.ppf(1 - 1e-4, n_draws, 0.70)  # 0.683 for a normal law


@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
def test_degrees_of_freedom_by_probes(shape, weighted, store):
    X, _, weights = make(*shape, weighted=weighted)
    for alpha in (0.5, 500.0):
        exact = effective_df(store(X), alpha, sample_weight=weights)
        assert exact.standard_error == 0
        plain = Plain(X, np.zeros(shape[0]), alpha, weights)
        np.testing.assert_allclose(exact.value, np.trace(plain.hat), rtol=1e-9)
        guess = effective_df(store(X), alpha, sample_weight=weights, n_probes=400)
        assert abs(guess.value - exact.value) <= 5 * guess.standard_error + 1e-3 * exact.value
        assert guess.standard_error < exact.value


def test_a_leverage_of_one_is_named():
    X = np.zeros((6, 2))
    X[:, 0], X[3, 1] = np.arange(6), 1
    found = Inference(X, np.arange(6.0) ** 2, 0.0)
    np.testing.assert_allclose(found.leverages[3], 1)
    with pytest.raises(ValueError, match="sample 3 has leverage 1"):
        found.standard_errors("HC3")
    assert np.isfinite(found.standard_errors("HC1")).all()


def test_nothing_is_uncertain_about_what_the_penalty_leaves_out():
    X, y, _ = make(30, 4)
    found = Inference(X, y, 1e12)
    assert (found.shrinkage < 1e-6).all()
    assert found.effective_df == pytest.approx(1, abs=1e-6)
    assert (found.standard_errors() < 1e-6).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": [1.0, 2.0]}, "one alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": 0.0, "X": np.ones((20, 2))}, "depend on one another"),
        ({"alpha": 0.0, "X": np.random.default_rng(0).standard_normal((20, 30))}, "depend on one another"),
        ({"alpha": 1e-12, "X": np.random.default_rng(0).standard_normal((20, 30))}, "none is left for the noise"),
        ({"X": np.full((20, 2), np.nan)}, "NaN"),
        ({"y": np.arange(19.0)}, "19"),
        ({"X": 1e200 * np.random.default_rng(0).standard_normal((20, 3))}, "rescale"),
    ],
)
def test_bad_input(change, message):
    rng = np.random.default_rng(5)
    arguments = {"X": rng.standard_normal((20, 3)), "y": np.column_stack([np.arange(20.0)] * 2), "alpha": 1.0} | change
    with pytest.raises(ValueError, match=message):
        Inference(**arguments)


def test_bad_arguments_of_methods():
    X, y, _ = make(30, 4)
    found = Inference(X, y)
    assert "30 samples x 4 features" in repr(found)
    with pytest.raises(ValueError, match="HC4"):
        found.standard_errors("HC4")
    with pytest.raises(ValueError, match="level"):
        found.confidence_intervals(95)
    with pytest.raises(ValueError, match="3 features, the fit had 4"):
        found.predict(X[:, :3])
    with pytest.raises(ValueError, match="observation"):
        found.predict(X, of="noise")
    for bad in ({"alpha": 0.0}, {"alpha": [1.0]}, {"n_probes": 1}, {"n_probes": 2.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            effective_df(X, **bad)


def test_memory_is_looked_at_first(monkeypatch):
    monkeypatch.setattr(costs, "physical_memory", lambda: 1e3)
    with pytest.raises(MemoryError, match="effective_df"):
        Inference(*make(30, 10)[:2])
