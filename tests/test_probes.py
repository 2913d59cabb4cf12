"""Criteria by probes, held against the exact ones"""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights

from fastridge import RidgeClassifierCV, RidgeCV
from fastridge.request import Method, Request
from fastridge.selection import probes

pytestmark = pytest.mark.filterwarnings("ignore:the best alpha")
ALPHAS = np.geomspace(1.0, 1e3, 7)
SIGMAS = 6.0
"""Standard errors within which a figure of 16 probes must be: Student's t with 15 degrees of freedom is once in 20,000 beyond."""


def data(n, p, storage, k=1, dtype=np.float64):
    rng = np.random.default_rng(n + p)
    X = (rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.3)).astype(dtype)
    y = X[:, :k] @ np.ones((k, k)) + rng.standard_normal((n, k))
    return storage(X), y[:, 0] if k == 1 else y


@pytest.fixture
def estimated(monkeypatch):
    monkeypatch.setattr(probes, "MAX_EXACT", 0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", ["gcv", "aic", "bic"])
@pytest.mark.parametrize("shape", [(150, 40), (40, 150)])
@pytest.mark.parametrize("storage", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array])
def test_scores_are_the_exact_ones_within_their_standard_errors(storage, shape, name, intercept, weighted, estimated):
    X, y = data(*shape, storage, 2)
    weights = make_weights(shape[0], 3, zeros=True) if weighted else None
    asked = {"scoring": name, "fit_intercept": intercept, "alpha_per_target": True}
    exact = RidgeCV(ALPHAS, gcv_mode="eigen", **asked).fit(X, y, weights)
    found = RidgeCV(ALPHAS, **asked).fit(X, y, weights)
    errors = found.choice_.standard_errors
    assert exact.choice_.standard_errors is None
    assert (np.abs(found.scores_ - exact.scores_) <= SIGMAS * errors + 1e-9 * np.abs(exact.scores_)).all()
    assert (errors < 0.5 * np.ptp(exact.scores_, axis=0)).any()


def test_unpenalised_columns_and_float32(estimated):
    X, y = data(120, 30, np.asarray, dtype=np.float32)
    d = np.linspace(0, 2, 30)
    exact = RidgeCV(ALPHAS, scoring="gcv", penalty_weights=d, gcv_mode="eigen").fit(X, y)
    found = RidgeCV(ALPHAS, scoring="gcv", penalty_weights=d).fit(X, y)
    assert (np.abs(found.scores_ - exact.scores_) <= SIGMAS * found.choice_.standard_errors).all()


def test_the_standard_error_is_what_estimates_scatter(monkeypatch):
    X, y = data(200, 60, np.asarray)
    asked = {"fit_intercept": True, "positive": False, "bounds": None, "penalty_weights": None}
    request = Request.checked(X, y, None, Method(), alpha=1.0, **asked)
    means, errors = [], []
    for seed in range(40):
        monkeypatch.setattr(probes, "SEED", seed)
        df = probes.traces(request, ALPHAS, Method())
        means.append(df.mean(axis=0))
        errors.append(df.std(axis=0, ddof=1) / np.sqrt(len(df)))
    s = np.linalg.eigvalsh((X - X.mean(axis=0)).T @ (X - X.mean(axis=0)))
    exact = 1 + (s[:, None] / (s[:, None] + ALPHAS)).sum(axis=0)
    scatter = np.std(means, axis=0, ddof=1)
    assert (np.abs(np.mean(means, axis=0) - exact) <= SIGMAS * scatter / np.sqrt(40)).all()
    ratio = scatter / np.mean(errors, axis=0)  # relative spread of a standard deviation of 40: 0.11
    assert (ratio > 0.5).all()
    assert (ratio < 1.6).all()


def test_the_choice_says_that_probes_made_it(estimated):
    X, y = data(150, 40, np.asarray)
    model = RidgeCV("auto", scoring="gcv").fit(X, y)
    assert "16 probes" in repr(model.choice_)
    assert model.report_.converged
    labels = RidgeClassifierCV(ALPHAS, scoring="gcv").fit(X, y > 0)
    assert labels.choice_.method.endswith("from 16 probes")


def test_a_penalty_that_leaves_no_degrees_of_freedom_is_not_chosen(estimated):
    X, y = data(40, 150, np.asarray)
    model = RidgeCV([1e-9, 10.0], scoring="gcv").fit(X, y)
    assert model.alpha_ == 10.0
