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

from bench import bounded
from bench.cases import Data
from bench.choice import best_alphas

GOAL = 1e-10  # of the last correction, relative: errors of 1e-6 are then measured to four digits or more
CLOSED_FORM_SIDE = 4000  # a factorisation of this size takes about a second
BLOCK_BYTES = 64e6  # of X converted to centred float64 at a time, so that no second X is held


class Centred:
    """Apply A = X - 1 mean' and its transpose to float64 vectors, or to k of them as columns; X stays as it is stored."""

    def __init__(self, X):
        self.X, self.shape = X, X.shape
        n, p = X.shape
        self.rows = max(1, int(BLOCK_BYTES // (8 * p)))
        total = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel()
        self.mean = total / n
        # A second pass takes out what rounding left of the first where means are huge.
        self.mean = self.mean + self.rmatvec(np.ones(n)) / n

    def blocks(self):
        """Yield (slice of rows, those rows of A) as dense float64."""
        for start in range(0, self.shape[0], self.rows):
            rows = slice(start, start + self.rows)
            some = self.X[rows].toarray() if sparse.issparse(self.X) else self.X[rows].astype(np.float64)
            yield rows, some - self.mean

    def matvec(self, v):
        """Return A v, (n,)."""
        if sparse.issparse(self.X):
            return self.X @ v - self.mean @ v  # also (p, k), for k vectors at once
        return np.concatenate([block @ v for _, block in self.blocks()])

    def rmatvec(self, u):
        """Return A'u, (p,)."""
        if sparse.issparse(self.X):
            return self.X.T @ u - np.multiply.outer(self.mean, u.sum(axis=0))
        return sum(block.T @ u[rows] for rows, block in self.blocks())

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
    """Hold w* of one problem, in `coef` (k, p) float64, and measure others against it."""

    def __init__(self, data: Data):
        self.data, self.A = data, Centred(data.X)
        targets = data.y.reshape(len(data.y), -1)
        if data.alphas is not None:
            targets = np.repeat(targets, len(data.measured_alphas), axis=1)
        self.y_mean = targets.mean(axis=0)
        self.targets = targets - self.y_mean
        if data.choices is not None:
            self.alphas = self._chosen()
        else:
            self.alphas = np.broadcast_to(data.alpha if data.alphas is None else data.measured_alphas, targets.shape[1])
        path = _cache_folder() / f"{_fingerprint(self)}.npy"
        if path.exists():  # these very numbers were solved before
            self.coef = np.load(path)
        else:
            self.coef = self._solved()
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self.coef)
        # w* = 0 where y is constant
        self.norms = np.maximum(h_norms(self.A, self.alphas, self.coef), np.finfo(float).tiny)

    def _chosen(self) -> np.ndarray:
        """Return the best of the penalties to choose from, (k,), found once for these very numbers."""
        self.alphas = self.data.choices
        path = _cache_folder() / f"{_fingerprint(self)}.chosen.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, best_alphas(self.A, self.targets, self.data.choices, self.data.task))
        return np.load(path)

    def error(self, answer) -> float:
        """Return how far an answer is from the best one, the largest over targets, a wrong intercept or prediction included."""
        if answer.prediction is not None:
            best = self.targets + self.y_mean - self._residual(self.coef)
            off = answer.prediction.reshape(best.shape) - best
            return float(np.max(np.linalg.norm(off, axis=0) / self.norms))
        return float(np.hypot(self.coef_error(answer.coef), self._intercept_error(answer.coef, answer.intercept)))

    def coef_error(self, coef) -> float:
        """Return `||coef - w*||_H / ||w*||_H`, the largest over targets; with bounds, by the objective."""
        step = np.atleast_2d(np.asarray(coef, dtype=np.float64))
        k = len(step)  # of a path, a peer may answer the first few
        step = step - self.coef[:k]
        sq_errors = h_norms(self.A, self.alphas[:k], step) ** 2
        if self.data.bounds is not None:
            sq_errors += 2 * bounded.first_order(self, step[0])
        return float(np.max(np.sqrt(sq_errors) / self.norms[:k]))

    def floor(self, dtype) -> float:
        """Return what the measurement of coefficients in dtype may be off by: w* rounded to it, and w* itself."""
        return 4 * self.coef_error(self.coef.astype(dtype)) + (GOAL if self.data.bounds is None else bounded.GOAL)

    def _intercept_error(self, coef, intercept) -> float:
        """Return sqrt(n) |b - best b for these coef| / ||w*||_H: what a wrong b adds to the error, by Pythagoras."""
        coef = np.atleast_2d(np.asarray(coef, dtype=np.float64))
        k = len(coef)
        best = self.y_mean[:k] - coef @ self.A.mean
        return float(np.max(np.sqrt(self.A.shape[0]) * np.abs(intercept - best) / self.norms[:k]))

    def _residual(self, coef):
        """Return y - A w for every target, (n, k)."""
        return self.targets - self.A.matvec(coef.T)

    def gradient(self, coef):
        """Return that of the objective, A'(A w - y) + alpha w, (k, p)."""
        return self.alphas[:, None] * coef - self.A.rmatvec(self._residual(coef)).T

    def _solved(self):
        if self.data.bounds is not None:
            return bounded.solve(self)[None, :]
        solvers = {}
        prepare = _small_side(self.A)
        coef = []
        for y, alpha in zip(self.targets.T, self.alphas, strict=True):
            if alpha not in solvers:
                solvers = {alpha: prepare(alpha)}  # one factor at a time
            coef.append(_refined(self.A, y, alpha, solvers[alpha]))
        return np.stack(coef)


def h_norms(A: Centred, alphas, coef):
    """Return sqrt(v'(A'A + alpha I)v) for each row v of coef (k, p), without squares of A that cancel."""
    return np.hypot(np.linalg.norm(A.matvec(coef.T), axis=0), np.sqrt(alphas) * np.linalg.norm(coef, axis=1))


def _refined(A: Centred, y, alpha: float, solve) -> np.ndarray:
    """Return w*, (p,), by corrections with `solve` until one changes w by GOAL or less in the H-norm; y is centred."""
    # On the n side the unknown is a with w = A'a and (AA' + alpha I) a = y; on the p side it is w itself.
    n, p = A.shape
    unknown, w, changes = 0.0, np.zeros(p), []
    for _ in range(10):
        residual = y - A.matvec(w)
        unknown = unknown + solve(A.rmatvec(residual) - alpha * w if n >= p else residual - alpha * unknown)
        last, w = w, unknown if n >= p else A.rmatvec(unknown)
        change, size = h_norms(A, alpha, np.stack([w - last, w]))
        changes.append(change / max(size, np.finfo(float).tiny))
        if changes[-1] <= GOAL:
            return w
    raise ArithmeticError(f"the reference solution still moves by {min(changes):.1e}, more than {GOAL}")


def _small_side(A: Centred):
    """Return a function of alpha that returns a solver: of (A'A + alpha I) e = r if n >= p, else (AA' + alpha I) e = r.

    A solver is good to several digits.
    """
    n, p = A.shape
    small = min(n, p)
    if small <= CLOSED_FORM_SIDE or not sparse.issparse(A.X):
        gram = A.small_gram()
        diagonal = gram.diagonal().copy()

        def factored(alpha):
            gram[np.diag_indices(small)] = diagonal + alpha
            factor = linalg.cho_factor(gram)
            return lambda r: linalg.cho_solve(factor, r)

        return factored
    product = (lambda v: A.rmatvec(A.matvec(v))) if n >= p else (lambda v: A.matvec(A.rmatvec(v)))
    sq_norms = A.sq_small_norms()

    def iterated(alpha):
        H = LinearOperator((small, small), matvec=lambda v: product(v) + alpha * v, dtype=np.float64)
        jacobi = sparse.diags_array(1 / (sq_norms + alpha))
        return lambda r: cg(H, r, rtol=1e-8, maxiter=20_000, M=jacobi)[0]

    return iterated


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    return Path(base) / "fastridge-bench"


def _fingerprint(reference: Reference) -> str:
    data, X = reference.data, reference.data.X
    arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
    arrays += [data.y, reference.alphas]
    arrays += [] if data.bounds is None else [np.asarray(bound, dtype=np.float64) for bound in data.bounds]
    digest = hashlib.blake2b(f"{X.shape} {data.task}".encode(), digest_size=12)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
