"""Every real data set at hand, default settings: the H-norm error measured from outside is within the default tolerance.

The folder with the data is that of the environment variable FASTRIDGE_DATA, or shared/data beside the checkout; without it
there is nothing to test.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg
from truth import Exact

from fastridge import Status, ridge

FOLDER = Path(os.environ.get("FASTRIDGE_DATA", Path(__file__).parents[2] / "shared" / "data"))
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
MAX_REFINED = 2_000_000
"""Entries up to which the reference is refined in long double."""
MAX_FACTOR = 4000
"""Small side up to which H is factored."""
BLOCK = 20_000

pytestmark = pytest.mark.skipif(not NAMES, reason=f"no data in {FOLDER}")


def load(name):
    """Return X (dense or CSR), y, and Y or None"""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        if "indptr" in arrays:
            X = sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"]))
        else:
            X = arrays["X"]
        return X, arrays["y"], arrays.get("Y")


def measure(X, y, alpha, coef):
    """Relative H-norm error of `coef` (p,) for one target"""
    dense = not sp.issparse(X)
    if dense and X.size <= MAX_REFINED:
        return Exact(X, y, alpha).error(coef)[0]
    X = X if dense else X.astype(np.float64)
    n = len(y)
    mean = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel() / n
    y = y - y.mean(dtype=np.float64)
    w = coef.astype(np.float64)
    if dense:
        blocks = [X[lo : lo + BLOCK] for lo in range(0, n, BLOCK)]
        fit = np.concatenate([(block.astype(np.float64) - mean) @ w for block in blocks])
        gradient = -alpha * w
        for lo, block in zip(range(0, n, BLOCK), blocks, strict=True):
            gradient += (block.astype(np.float64) - mean).T @ (y - fit)[lo : lo + BLOCK]
    else:
        fit = X @ w - mean @ w
        gradient = X.T @ (y - fit) - mean * (y - fit).sum() - alpha * w
    size = np.hypot(np.linalg.norm(fit), np.sqrt(alpha) * np.linalg.norm(w))
    return inverse_norm(X, mean, alpha, gradient) / size


def inverse_norm(X, mean, alpha, gradient):
    """Square root of g'H^-1 g, or an upper bound of it that is sharp where it matters"""
    n, p = X.shape
    if not sp.issparse(X):  # tall: the triangle of [A; sqrt(alpha) I] by blocks of rows
        triangle = np.sqrt(alpha) * np.eye(p)
        for lo in range(0, n, BLOCK):
            triangle = np.linalg.qr(np.vstack([triangle, X[lo : lo + BLOCK] - mean]), mode="r")
        return np.linalg.norm(scipy.linalg.solve_triangular(triangle, gradient, trans="T"))
    if p <= MAX_FACTOR:
        H = (X.T @ X).toarray() - n * np.outer(mean, mean) + alpha * np.eye(p)
        return np.sqrt(gradient @ scipy.linalg.cho_solve(scipy.linalg.cho_factor(H), gradient))
    H = LinearOperator((p, p), matvec=lambda v: X.T @ (u := X @ v - mean @ v) - mean * u.sum() + alpha * v)
    e, _ = cg(H, gradient, rtol=1e-5)
    # What is left of the residual adds at most its norm over the root of the smallest eigenvalue of H.
    return np.sqrt(e @ (H @ e)) + np.linalg.norm(gradient - H @ e) / np.sqrt(alpha)


@pytest.mark.parametrize("name", NAMES)
def test_default_fit(name):
    X, y, _ = load(name)
    solution = ridge(X, y)
    assert solution.report.status is Status.CONVERGED
    error = measure(X, y, 1.0, solution.coef)
    assert error <= 1e-6
    assert error <= solution.report.error_bound + 1e-9
    assert error <= 3 * solution.report.error + 1e-9


# News20 takes thousands of steps for a target at alpha = 1: enough for one test.
@pytest.mark.parametrize(("name", "every", "alpha"), [("mnist_t10k", 1, 1.0), ("libsvm_news20", 7, 100.0)])
def test_several_targets(name, every, alpha):
    if name not in NAMES:
        pytest.skip(f"no {name} in {FOLDER}")
    X, _, Y = load(name)
    Y = Y[:, ::every]
    solution = ridge(X, Y, alpha)
    assert solution.report.status is Status.CONVERGED
    assert solution.coef.shape == (Y.shape[1], X.shape[1])
    for target in (0, Y.shape[1] // 2, -1):
        assert measure(X, Y[:, target], alpha, solution.coef[target]) <= 1e-6
