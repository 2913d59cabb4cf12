"""Gram matrix of the small side, Cholesky factor, and refinement against the data."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrf, dpotrs

from fastridge.krylov import relative_bound
from fastridge.lines import Vector
from fastridge.parallel import blas_for
from fastridge.problem import Problem, relative
from fastridge.solution import Answer, Settings

NORM_BLOCK = 64
"""Columns whose absolute values are summed together."""
MAX_REFINEMENTS = 5
"""Each multiplies the error by about eps times the condition number; where five do not do, no more will."""
BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of the Gram matrix and its factor, relative to the norm of M; times the square root of the longer side."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective through M = L L' on the small side, for every distinct penalty

    The residual is recomputed from the data and its size in the M^-1 norm, the error, through the factor; the answer is refined
    until that is at most `tol`. Guaranteed: `error_bound`, as far as the condition number (LAPACK's 1-norm estimate) is.

    Raises
    ------
    np.linalg.LinAlgError
        If M is not positive definite in float64.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, ch. 10 and 12, DOI 10.1137/1.9780898718027.
    """
    gram = problem.side.gram()
    k = len(problem.penalty)
    if k == 1:
        penalties, group = problem.penalty, np.zeros(1, dtype=np.intp)
    else:
        penalties, group = np.unique(problem.penalty, return_inverse=True)
    factors, rconds = [], []
    for i, penalty in enumerate(penalties):
        factor, rcond = _factor(gram, float(penalty), overwrite=i == len(penalties) - 1)
        factors.append(factor)
        rconds.append(rcond)
    del gram
    parts = (_refined(part, factors, np.asarray(rconds), group[targets], settings.tol) for targets, part in problem.chunks())
    return Answer.joined(parts, (problem.design.shape[1], k))


def _refined(problem: Problem, factors: list[Vector], rconds: Vector, group: np.ndarray, tol: float) -> Answer:
    """Solve by the factors and refine; target i has that of its `group`"""
    c, k = problem.rhs.shape

    def apply_inverse(v: Vector) -> Vector:
        if len(factors) == 1:
            with blas_for(c):
                return np.ascontiguousarray(dpotrs(factors[0], v, lower=1)[0])
        out = np.empty_like(v)
        for i, factor in enumerate(factors):
            members = group == i
            with blas_for(c):
                out[:, members] = dpotrs(factor, v[:, members], lower=1)[0]
        return out

    x = apply_inverse(problem.rhs)
    n_iter, previous = 0, np.inf
    while True:
        check = problem.check(x)
        correction = apply_inverse(check.residual)
        sq_error = problem.sq_error(check.residual, correction)
        error = relative(sq_error, check.sq_size)
        worst = float(error.max())
        if worst <= tol or n_iter == MAX_REFINEMENTS or not worst < previous / 2:
            break
        x, n_iter, previous = x + correction, n_iter + 1, worst
    # H >= (1 - theta) times the matrix that the factor really belongs to.
    m = max(problem.design.shape)
    theta = BACKWARD_ERROR * np.sqrt(m) / rconds[group]
    with np.errstate(divide="ignore"):
        sq_bound = np.where(theta < 0.5, sq_error / (1 - np.minimum(theta, 0.5)), np.inf)
    sq_bound = np.where(problem.penalty > 0, np.minimum(sq_bound, problem.sq_bound(check.residual)), np.inf)
    return Answer(
        check.w,
        np.full(k, n_iter),
        error,
        relative_bound(sq_bound, check),
        check.sq_size,
        stalled=worst > tol,
        rcond=float(rconds.min()),
        workspace_bytes=8 * c * c * len(factors) + 8 * 4 * c * k,
    )


def _factor(gram: Vector, penalty: float, overwrite: bool) -> tuple[Vector, float]:
    """Return (L, reciprocal condition number) of gram + penalty I, lower triangles in F order"""
    matrix = gram if overwrite else gram.copy(order="F")
    diagonal = np.einsum("ii->i", matrix)
    diagonal += penalty
    norm = _norm1(matrix)
    with blas_for(len(matrix)):
        factor, info = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    if info:
        raise np.linalg.LinAlgError(
            f'the normal matrix is not positive definite in float64 at alpha={penalty:g}; raise alpha or use solver="svd"'
        )
    rcond, _ = dpocon(factor, norm, uplo="L")
    return factor, float(rcond)


def _norm1(lower: Vector) -> float:
    """1-norm of the symmetric matrix whose lower triangle is given"""
    sums = np.zeros(lower.shape[0])
    for lo in range(0, len(sums), NORM_BLOCK):
        hi = lo + NORM_BLOCK
        part = np.abs(np.tril(lower[lo:, lo:hi]))
        sums[lo:] += part.sum(axis=1)
        sums[lo:hi] += part.sum(axis=0) - part.diagonal()
    return float(sums.max(initial=0.0))
