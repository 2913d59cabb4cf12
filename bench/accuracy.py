"""Measure from outside, in float64 and without fastridge, how far coefficients are from the ridge solution.

With A the X centred by its column means, y centred too, and H = A'A + alpha I, the error of w is
`||w - w*||_H / ||w*||_H`. Squared, that is the share of the achievable decrease of the objective still on the table.
w* is solved for on the small side of X, by Cholesky up to CLOSED_FORM_SIDE and by Jacobi-preconditioned conjugate
gradients above (sparse X only). Each round solves for the correction that the residual, recomputed from the data, calls
for; the last one is below GOAL ||w*||_H, and what is left after it is smaller still.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, cg

from bench.cases import Data

GOAL = 1e-10  # of the last correction, relative: errors of 1e-6 are then measured to four digits or more
CLOSED_FORM_SIDE = 4000  # a factorisation of this size takes about a second
BLOCK_BYTES = 64e6  # of X converted to centred float64 at a time, so that no second X is held


class Centred:
    """Apply A = X - 1 mean' and its transpose to float64 vectors; X stays as it is stored."""

    def __init__(self, X):
        self.X, self.shape = X, X.shape
        n, p = X.shape
        self.rows = max(1, int(BLOCK_BYTES // (8 * p)))
        total = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel()
        self.mean = total / n
        # A second pass takes out what rounding left of the first where means are huge.
        self.mean = self.mean + self.rmatvec(np.ones(n)) / n

    def blocks(self):
        """Yield (slice of rows, those rows of A) in float64, for dense X."""
        for start in range(0, self.shape[0], self.rows):
            rows = slice(start, start + self.rows)
            yield rows, self.X[rows].astype(np.float64) - self.mean

    def matvec(self, v):
        """Return A v, (n,)."""
        if sparse.issparse(self.X):
            return self.X @ v - self.mean @ v
        return np.concatenate([block @ v for _, block in self.blocks()])

    def rmatvec(self, u):
        """Return A'u, (p,)."""
        if sparse.issparse(self.X):
            return self.X.T @ u - self.mean * u.sum()
        return sum(u[rows] @ block for rows, block in self.blocks())

    def small_gram(self):
        """Return A'A if n >= p, else AA'."""
        n, p = self.shape
        if sparse.issparse(self.X):
            X = self.X.astype(np.float64)
            if n >= p:
                return (X.T @ X).toarray() - n * np.outer(self.mean, self.mean)
            cross = X @ self.mean
            return (X @ X.T).toarray() - cross[:, None] - cross + self.mean @ self.mean
        if n >= p:
            return sum(block.T @ block for _, block in self.blocks())
        A = self.X - self.mean
        return A @ A.T

    def sq_small_norms(self):
        """Return the diagonal of `small_gram`, for sparse X."""
        n, p = self.shape
        square = self.X.astype(np.float64).power(2)
        if n >= p:
            return np.asarray(square.sum(axis=0)).ravel() - n * self.mean**2
        return np.asarray(square.sum(axis=1)).ravel() - 2 * self.X @ self.mean + self.mean @ self.mean


class Reference:
    """Hold w* of one data set, in `coef` (p,) or (k, p) float64, and measure others against it."""

    def __init__(self, data: Data):
        self.data, self.A = data, Centred(data.X)
        path = _cache_folder() / f"{_fingerprint(data)}.npy"
        if path.exists():  # these very numbers were solved before
            self.coef = np.load(path)
        else:
            self.coef = self._solved()
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self.coef)
        self.norms = np.maximum(self._norms(self.coef), np.finfo(float).tiny)  # w* = 0 where y is constant

    def error(self, coef) -> float:
        """Return `||coef - w*||_H / ||w*||_H`, the largest over targets."""
        return float(np.max(self._norms(np.asarray(coef, dtype=np.float64) - self.coef) / self.norms))

    def intercept_error(self, coef, intercept) -> float:
        """Return sqrt(n) |b - best b for these coef| / ||w*||_H: what a wrong b adds to the error, by Pythagoras."""
        best = self.data.y.mean(axis=0) - np.asarray(coef, dtype=np.float64) @ self.A.mean
        return float(np.max(np.sqrt(self.A.shape[0]) * np.abs(intercept - best) / self.norms))

    def _norms(self, coef):
        return np.array([h_norm(self.A, self.data.alpha, w) for w in np.atleast_2d(coef)])

    def _solved(self):
        solve = _small_side_solver(self.A, self.data.alpha)
        targets = np.atleast_2d(self.data.y.T).astype(np.float64)
        coef = np.stack([_refined(self.A, y - y.mean(), self.data.alpha, solve) for y in targets])
        return coef if self.data.y.ndim == 2 else coef[0]


def h_norm(A: Centred, alpha: float, v) -> float:
    """Return sqrt(v'(A'A + alpha I)v), without squares of A that cancel."""
    return float(np.hypot(linalg.norm(A.matvec(v)), np.sqrt(alpha) * linalg.norm(v)))


def _refined(A: Centred, y, alpha: float, solve) -> np.ndarray:
    """Return w*, (p,), by corrections with `solve` until one changes w by GOAL or less in the H-norm; y is centred."""
    # On the n side the unknown is a with w = A'a and (AA' + alpha I) a = y; on the p side it is w itself.
    n, p = A.shape
    unknown, w, changes = 0.0, np.zeros(p), []
    for _ in range(10):
        residual = y - A.matvec(w)
        unknown = unknown + solve(A.rmatvec(residual) - alpha * w if n >= p else residual - alpha * unknown)
        last, w = w, unknown if n >= p else A.rmatvec(unknown)
        changes.append(h_norm(A, alpha, w - last) / max(h_norm(A, alpha, w), np.finfo(float).tiny))
        if changes[-1] <= GOAL:
            return w
    raise ArithmeticError(f"the reference solution still moves by {min(changes):.1e}, more than {GOAL}")


def _small_side_solver(A: Centred, alpha: float):
    """Return a function that solves (A'A + alpha I) e = r if n >= p, else (AA' + alpha I) e = r, to several digits."""
    n, p = A.shape
    small = min(n, p)
    if small <= CLOSED_FORM_SIDE or not sparse.issparse(A.X):
        H = A.small_gram()
        H[np.diag_indices(small)] += alpha
        factor = linalg.cho_factor(H, overwrite_a=True)
        return lambda r: linalg.cho_solve(factor, r)
    product = (lambda v: A.rmatvec(A.matvec(v))) if n >= p else (lambda v: A.matvec(A.rmatvec(v)))
    H = LinearOperator((small, small), matvec=lambda v: product(v) + alpha * v, dtype=np.float64)
    jacobi = sparse.diags_array(1 / (A.sq_small_norms() + alpha))
    return lambda r: cg(H, r, rtol=1e-8, maxiter=20_000, M=jacobi)[0]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    return Path(base) / "fastridge-bench"


def _fingerprint(data: Data) -> str:
    X = data.X
    arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
    digest = hashlib.blake2b(f"{X.shape} {data.alpha}".encode(), digest_size=12)
    for array in [*arrays, data.y]:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
