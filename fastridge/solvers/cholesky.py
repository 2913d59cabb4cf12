"""Gram matrix of the small side, Cholesky factor, and refinement against the data."""

from __future__ import annotations

import numpy as np

from fastridge.factor import ScaledFactor
from fastridge.operators.base import GoOn, Vector
from fastridge.problem import Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

MAX_REFINEMENTS = 5
"""A refinement multiplies the error by about eps times the condition number; where five do not do, no more will."""


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
    monitor = settings.monitor
    gram = problem.side.gram(monitor.go_on)
    k = len(problem.penalty)
    if k == 1:
        penalties, group = problem.penalty, np.zeros(1, dtype=np.intp)
    else:
        penalties, group = np.unique(problem.penalty, return_inverse=True)
    factors: list[ScaledFactor] = []
    for penalty in penalties:
        if not monitor.go_on():
            return Answer.zero(problem)
        last = len(factors) == len(penalties) - 1
        factors.append(_factor(problem, gram if last else gram.copy(order="F"), float(penalty), monitor.go_on))
    del gram
    if not monitor.go_on():
        return Answer.zero(problem)
    return Answer.in_parts(problem, monitor, lambda targets, part: _refined(part, factors, group[targets], settings))


def _factor(problem: Problem, gram: Vector, penalty: float, go_on: GoOn) -> ScaledFactor:
    """Factor gram + penalty I; gram is overwritten"""
    factor = ScaledFactor(gram, penalty, max(problem.design.shape), cancelled=problem.cancelled(penalty), go_on=go_on)
    # Without a penalty a factor that is not believed may hold no right digit.
    if factor.complete and (factor.rcond == 0 or (penalty == 0 and factor.loss == np.inf)):
        raise np.linalg.LinAlgError(
            f'the normal matrix is not positive definite in float64 at alpha={penalty:g}; raise alpha or use solver="svd"'
        )
    return factor


def _refined(problem: Problem, factors: list[ScaledFactor], group: np.ndarray, settings: Settings) -> Answer:
    """Solve by the factors and refine until the bound is at most the tolerance; target i has the factor of its `group`"""
    (c, k), tol = problem.rhs.shape, settings.tol

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
        go_on = settings.monitor.after_step(worst, float(bound.max()))
        done = bool((np.where(problem.penalty > 0, bound, error) <= tol).all())
        if done or not go_on or n_iter == MAX_REFINEMENTS or not worst < previous / 2:
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
