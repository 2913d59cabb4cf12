"""Scores of penalties on rows that are read block by block, against those of the whole array."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import make_weights, make_X, make_y

from fastridge import Moments, rows, scan
from fastridge.request import Method, Request, RowsRequest
from fastridge.selection.loo import LeaveOneOut
from fastridge.selection.streams import fold_moments, leave_one_out

ALPHAS = np.array([1e-3, 1.0, 1e2])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)


@pytest.mark.parametrize("store", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [0, 2])
def test_leave_one_out(n_targets, weighted, intercept, store):
    X = make_X(300, 7, seed=1)
    y = make_y(X, 2, n_targets)
    weights = make_weights(300, 3, zeros=True) if weighted else None
    none = {"positive": False, "bounds": None, "penalty_weights": None, "fit_intercept": intercept, "alpha": 1.0}
    request = RowsRequest.of_source(scan(store(X), target=y, weight=weights), Method(), **none)
    problem = request.problem(2)
    sums, answer = leave_one_out(problem, ALPHAS, intercept)
    whole = LeaveOneOut(Request.checked(X, y, weights, Method(), **none), ALPHAS, 2)
    np.testing.assert_allclose(sums, whole.errors().sq_sums, rtol=1e-9)
    for a in range(3):
        np.testing.assert_allclose(answer(a), whole.coefficients(np.full(max(1, n_targets), a))[0], rtol=1e-7, atol=1e-10)


def test_a_row_that_nothing_else_predicts():
    X = np.zeros((50, 2))
    X[:, 0], X[33, 1] = np.arange(50), 1
    none = {"positive": False, "bounds": None, "penalty_weights": None, "fit_intercept": True, "alpha": 1.0}
    problem = RowsRequest.of_source(scan(X, target=np.arange(50.0) ** 2), Method(), **none).problem(1)
    with pytest.raises(ValueError, match="row 33 is predicted by itself alone"):
        leave_one_out(problem, np.array([1e-12]), True)


@pytest.mark.parametrize("n_targets", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_folds(weighted, n_targets):
    X = make_X(301, 6, seed=4)
    y = make_y(X, 5, n_targets)
    weights = make_weights(301, 6) if weighted else None
    folds = fold_moments(scan(X, target=y, weight=weights), 4, 2)
    assert sum(fold.n_samples for fold in folds) == 301
    for i, fold in enumerate(folds):
        expected = Moments().update(X[i::4], y[i::4], None if weights is None else weights[i::4])
        np.testing.assert_allclose(fold.gram, expected.gram, rtol=1e-12, atol=1e-12 * np.abs(expected.gram).max())
        np.testing.assert_allclose(fold.cross, expected.cross, rtol=1e-11, atol=1e-11)


def test_more_folds_than_rows():
    with pytest.raises(ValueError, match="3 rows, fewer than the 5 folds"):
        fold_moments(scan(np.ones((3, 1)), target=np.arange(3.0)), 5, 1)
