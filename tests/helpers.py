"""Problems, and the storages that tests put them in; nothing here uses fastridge."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import lsq_linear
from truth import BoundedTruth


def make_X(n, p, seed, *, share=0.6, dtype=np.float64):
    """Dense (n, p): a share of nonzero entries, column scales from 0.1 to 10, means off zero, an empty row and column"""
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, p)) + rng.choice([0, 3], p)) * 10 ** rng.uniform(-1, 1, p)
    X *= rng.random((n, p)) < share
    if n > 3 and p > 3:
        X[n // 2], X[:, p // 2] = 0, 0
    return X.astype(dtype)


def make_y(X, seed, n_targets=0):
    """Targets (n,), or (n, n_targets): a linear function of X, noise, and a mean off zero"""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(X), max(1, n_targets)))
    y = X @ rng.standard_normal((X.shape[1], max(1, n_targets))) + noise + 5
    return y if n_targets else y[:, 0]


def make_weights(n, seed, *, zeros=False):
    """Sample weights (n,); with `zeros` about a third of them, but for the first, are zero"""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 3, n)
    if zeros:
        weights[1:] *= rng.random(n - 1) < 2 / 3
    return weights


def stacked(X, y, alpha, weights=None, intercept=True, d=None, dtype=np.float64):
    """K, t with P(w) = 1/2 ||K w - t||^2: the centred, weighted data above the root of the penalty"""
    X, y = np.asarray(X, dtype=dtype), np.asarray(y, dtype=dtype)
    s = np.ones(len(X), dtype=dtype) if weights is None else np.asarray(weights, dtype=dtype)
    if intercept:
        X, y = X - s @ X / s.sum(), y - s @ y / s.sum()
    r, p = np.sqrt(s), X.shape[1]
    pull = dtype(alpha) * (np.ones(p, dtype=dtype) if d is None else np.asarray(d, dtype=dtype))
    return np.vstack([r[:, None] * X, np.diag(np.sqrt(pull))]), np.concatenate([r * y, np.zeros(p, dtype=dtype)])


def reference(K, t, lower, upper):
    """The minimiser within bounds, (p,), which is sure; scipy's, which now and then stops early, is where the search begins"""
    movable = lower < upper
    start = np.array(lower, dtype=np.float64)
    if movable.any():
        rest = t - K[:, ~movable] @ lower[~movable]
        found = lsq_linear(K[:, movable], rest, (lower[movable], upper[movable]), "bvls", tol=1e-15, max_iter=2000)
        start[movable] = found.x
    truth = BoundedTruth(K, t, lower, upper, start)
    assert truth.unsure <= 1e-10
    return truth.coef


def judge(solution, w, K, t, lower, upper, tol, best=None):
    """Check that w is feasible, what the report of the solution claims, and the objective"""
    assert (w >= lower).all()
    assert (w <= upper).all()
    best = reference(K, t, lower, upper) if best is None else best
    size, off = np.linalg.norm(K @ best), np.linalg.norm(K @ (w - best))
    slack = 1e-10 * size + 1e-13 * np.linalg.norm(t)
    report = solution.report
    assert report.converged
    assert report.error <= tol
    assert off <= 1.01 * report.error_bound * size + slack if np.isfinite(report.error_bound) else True
    assert off <= tol * size + slack
    assert np.sum((K @ w - t) ** 2) - np.sum((K @ best - t) ** 2) <= (1.01 * tol * size) ** 2 + 1e-12 * (t @ t)


def _spread(X, rows, columns):
    """X as a view of a larger array: every rows-th row, every columns-th column"""
    n, p = X.shape
    large = np.ones((n * rows, p * columns), dtype=X.dtype)
    large[::rows, ::columns] = X
    return large[::rows, ::columns]


def _wide_indices(matrix):
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


STORAGES: dict[str, Callable[[np.ndarray], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "rows apart": lambda X: _spread(X, 2, 1),
    "columns apart": lambda X: _spread(X.T, 3, 1).T,
    "both apart": lambda X: _spread(X, 2, 3),
    "reversed": lambda X: np.ascontiguousarray(X[::-1])[::-1],
    "csr_array": sp.csr_array,
    "csr_array int64": lambda X: _wide_indices(sp.csr_array(X)),
    "csc_array": sp.csc_array,
    "csc_array int64": lambda X: _wide_indices(sp.csc_array(X)),
    "coo_array": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "coo_matrix": sp.coo_matrix,
}
