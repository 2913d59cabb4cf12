"""Gram matrix of the small side, Cholesky factor, and refinement against the data."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpocon, dpotrf, dpotrs

from fastridge.lines import Vector
from fastridge.parallel import blas_for
from fastridge.preconditioners import norm1
from fastridge.problem import Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

LARGEST_LOSS = 0.5
"""Above it the factor is not believed."""
MAX_REFINEMENTS = 5
"""Each multiplies the error by about eps times the condition number; where five do not do, no more will."""
BACKWARD_ERROR = 10 * np.finfo(np.float64).eps
"""Of the Gram matrix and its factor, relative to the norm of M; times the square root of the longer side."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective through M = L L' on the small side, for every distinct penalty

    M is scaled to a diagonal of ones, so that the scales of columns cost no digits. The residual is recomputed from the data and
    its size in the M^-1 norm, the error, through the factor; the answer is refined until the bound is at most `tol`.
    Guaranteed: `error_bound`, as far as the condition number (LAPACK's 1-norm estimate) is.

    Raises
    ------
    np.linalg.LinAlgError
        If M is not positive definite in float64; at alpha = 0, if it is so nearly singular that no digit may be right.

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
    rounding = BACKWARD_ERROR * float(np.sqrt(max(problem.design.shape)))
    factors = []
    for i, penalty in enumerate(penalties):
        own = gram if i == len(penalties) - 1 else gram.copy(order="F")
        factors.append(_Factor(own, float(penalty), rounding * problem.cancelled(float(penalty))))
    del gram
    parts = (_refined(part, factors, group[targets], settings.tol) for targets, part in problem.chunks())
    return Answer.joined(parts, (problem.design.shape[1], k))


class _Factor:
    """D M D = L L' with D the inverse roots of the diagonal of M = gram + penalty I

    The lower triangle of `gram`, F order, is overwritten. `rounding` is the relative error of D M D and its factor.

    Attributes
    ----------
    rcond : float
        Reciprocal condition number of D M D, by LAPACK's estimate, in the 1-norm.
    smallest : float
        Lower bound of the eigenvalues of D M D, as far as that estimate is; 0 where rounding leaves none.
    loss : float
        M is at least 1 - loss times the matrix that the factor really belongs to; inf where rounding leaves nothing.
    """

    def __init__(self, gram: Vector, penalty: float, rounding: float) -> None:
        diagonal = np.einsum("ii->i", gram)
        diagonal += penalty
        self.scale = np.divide(1.0, np.sqrt(diagonal), out=np.ones(len(gram)), where=diagonal > 0)
        gram *= self.scale
        gram *= self.scale[:, None]
        norm = norm1(gram)
        with blas_for(len(gram)):
            self.factor, info = dpotrf(gram, lower=1, clean=0, overwrite_a=1)
        self.rcond = 0.0 if info else float(dpocon(self.factor, norm, uplo="L")[0])
        theta = rounding / self.rcond if self.rcond > 0 else np.inf
        # Without a penalty a factor that is not believed may hold no right digit.
        if info or (penalty == 0 and theta >= LARGEST_LOSS):
            raise np.linalg.LinAlgError(
                f'the normal matrix is not positive definite in float64 at alpha={penalty:g}; raise alpha or use solver="svd"'
            )
        self.loss = theta if theta < LARGEST_LOSS else np.inf
        self.smallest = (1 - theta) * self.rcond * norm if theta < LARGEST_LOSS else 0.0

    def solve(self, v: Vector) -> Vector:
        """M^-1 v, (c, k)"""
        scale = self.scale[:, None]
        with blas_for(len(v)):
            return np.ascontiguousarray(scale * dpotrs(self.factor, scale * v, lower=1)[0])


def _refined(problem: Problem, factors: list[_Factor], group: np.ndarray, tol: float) -> Answer:
    """Solve by the factors and refine until the bound is at most `tol`; target i has the factor of its `group`"""
    c, k = problem.rhs.shape

    def apply_inverse(v: Vector) -> Vector:
        if len(factors) == 1:
            return factors[0].solve(v)
        out = np.empty_like(v)
        for i, factor in enumerate(factors):
            members = group == i
            out[:, members] = factor.solve(v[:, members])
        return out

    smallest, loss = (np.array([getattr(f, name) for f in factors])[group] for name in ("smallest", "loss"))
    x = apply_inverse(problem.rhs)
    n_iter, previous = 0, np.inf
    while True:
        check = problem.check(x, smallest)
        correction = apply_inverse(check.residual)
        sq_error = problem.sq_error(check.residual, correction)
        sq_bound = problem.sq_error_bound(check.residual, sq_error, loss)
        bound, error = relative_bound(sq_bound, check), relative(sq_error, check.sq_size)
        worst = float(error.max())
        if (np.where(problem.penalty > 0, bound, error) <= tol).all() or n_iter == MAX_REFINEMENTS or not worst < previous / 2:
            break
        x, n_iter, previous = x + correction, n_iter + 1, worst
    return Answer(
        check.w,
        np.full(k, n_iter),
        error,
        bound,
        check.sq_size,
        stalled=True,
        rcond=min(factor.rcond for factor in factors),
        workspace_bytes=8 * c * c * len(factors) + 8 * 4 * c * k,
    )
