"""Criteria where no side is small enough to decompose: residuals from a path, degrees of freedom from probes.

For z of random signs E z'S z = tr S with S the hat matrix: one fit to z as a target at all penalties gives a guess of the degrees
of freedom at each of them. The same probes serve all penalties, so that what they miss is much the same at neighbouring ones.

References
----------
Girard (1989), DOI 10.1007/BF01395775, and Hutchinson (1990), DOI 10.1080/03610919008812866 (the estimate); Golub & von Matt
(1997), DOI 10.1080/10618600.1997.10474725 (generalised cross-validation for large problems).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastridge.operators.base import Matrix, Vector
from fastridge.path import RidgePath, solve_path
from fastridge.request import Method, Request
from fastridge.selection.criteria import scores_by_probes
from fastridge.selection.folds import doubt_of

MAX_EXACT = 10_000
"""Unknowns up to which the small side is decomposed, in some minutes."""
N_PROBES = 16
TOL = 1e-4
"""Of the fits to probes. Quadratic forms of them are off by its square, far less than probes scatter."""
SEED = 0
"""Of the signs: the same data give the same bits."""
BLOCK_BYTES = 1 << 26
"""Of the rows of dense data that are multiplied at a time."""


def scores(name: str, request: Request, alphas: Vector, method: Method) -> tuple[Vector, Vector, float]:
    """Return the scores (a, k) by GCV, AIC or BIC, what they would be by each probe, (q, k, a), and the doubt of the fits"""
    path = solve_path(request, method, alphas)
    n = len(request.y) if request.weights is None else int(np.count_nonzero(request.weights))
    return *scores_by_probes(name, n, _sq_residuals(request, path), traces(request, alphas, method)), doubt_of(path)


def _sq_residuals(request: Request, path: RidgePath) -> Vector:
    """Weighted sums of squared residuals of the fits, (a, k)"""
    a, y = len(path.alphas), request.y.reshape(len(request.y), -1)
    k, p = y.shape[1], request.X.shape[1]
    coefs, intercepts = path.coefs.reshape(a * k, p), path.intercepts.reshape(a * k)
    sums = np.zeros((a, k))
    for rows in _blocks(request.X):
        residuals = np.tile(y[rows], a) - (request.X[rows] @ coefs.T + intercepts)
        weighted = np.square(residuals) if request.weights is None else request.weights[rows, None] * np.square(residuals)
        sums += weighted.sum(axis=0).reshape(a, k)
    return sums


def signs(rng: np.random.Generator, weights: Vector | None, shape: tuple[int, ...]) -> tuple[Vector, Vector]:
    """Targets of random signs, (n,) or (n, q), and what the fits to them are multiplied by, rows summed, for guesses of tr S"""
    drawn = rng.choice([-1.0, 1.0], shape)
    if weights is None:
        return drawn, drawn
    roots = np.sqrt(weights).reshape(-1, *[1] * (len(shape) - 1))
    return np.divide(drawn, roots, out=np.zeros(shape), where=roots > 0), drawn * roots


def traces(request: Request, alphas: Vector, method: Method) -> Vector:
    """Guesses of the degrees of freedom, intercept and unpenalised columns included, (N_PROBES, a)"""
    n, rng = len(request.y), np.random.default_rng(SEED)
    found = np.empty((N_PROBES, len(alphas)))
    for i in range(N_PROBES):
        method.monitor().say(f"probe {i + 1} of {N_PROBES}")
        target, reader = signs(rng, request.weights, (n,))
        one = replace(request, y=target, penalty=request.penalty[:1])
        path = solve_path(one, replace(method, tol=max(TOL, method.tol)), alphas)
        found[i] = 0.0
        for rows in _blocks(request.X):
            found[i] += reader[rows] @ (request.X[rows] @ path.coefs.T + path.intercepts)
    return found


def _blocks(X: Matrix) -> list[slice]:
    """All rows of sparse data, which are not converted; of dense ones as many as are worth a copy"""
    n = X.shape[0]
    step = max(1, BLOCK_BYTES // (8 * X.shape[1])) if isinstance(X, np.ndarray) else n
    return [slice(lo, lo + step) for lo in range(0, n, step)]
