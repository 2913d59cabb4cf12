"""Newton's method on the dual of a ridge problem with bounds: n unknowns, however many coefficients are free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from fastridge.krylov.iteration import conjugate_gradient
from fastridge.monitor import Monitor
from fastridge.operators.base import Vector
from fastridge.parallel import blas_for
from fastridge.preconditioners import Jacobi
from fastridge.problem import Bounds, Problem
from fastridge.solvers.bounded.records import relative_near

MAX_FACTOR = 1024
"""Samples up to which a step takes a Cholesky factor rather than conjugate gradients."""
FORCING = 0.1
"""Conjugate gradients leave at most this share of the residual; less where the error is less, down to this share of what is left
to do."""
MAX_STEPS = 30
"""Steps, at most; where there are more free coefficients than samples about ten are enough."""
FLAT = 0.1
"""Share of its first slope that the dual may still have at the end of a step."""
MAX_TRIALS = 60
"""Doublings and halvings of one step."""


@dataclass(frozen=True)
class DualPoint:
    """w (p,) within its bounds, the dual u (n,) it belongs to, and the steps that led there"""

    w: Vector
    u: Vector
    n_iter: int


def maximise(
    problem: Problem,
    pull: Vector,
    u: Vector,
    tol: float,
    max_iter: int,
    on_step: Callable[[float, float], bool],
    monitor: Monitor,
) -> DualPoint:
    """Maximise D(u) = y'u - 1/2 ||u||^2 - sum_j max over v in [l_j, u_j] of (a_j'u v - 1/2 alpha d_j v^2) over the n-vectors u

    Its gradient is r = y - A w - u with w = (alpha D)^-1 A'u clipped into the bounds, and 2 (P(w) - D(u)) = ||r||^2: what bounds
    the error of w needs no constant. D is piecewise quadratic; a step solves (I + A_F (alpha D_F)^-1 A_F') s = r for the set F of
    the coefficients that are not clipped, and goes along s to where D is nearly flat. Gives up, with the point reached, after
    MAX_STEPS or as soon as F has fewer elements than there are samples: then D has next to no curvature where F tells nothing,
    bounds come and go one by one, and the primal problem has the smaller system.

    Parameters
    ----------
    problem : Problem
        Of one target, with bounds, its columns not scaled.
    pull : (p,)
        alpha d, > 0.
    u : (n,)
        Where to begin; y - A w of a good w is a good one.
    tol : float
        Of ||r|| relative to ||w*||_H.
    on_step : callable
        Takes the error and its bound after every step and says whether to go on.
    monitor : Monitor
        Asked within steps.

    References
    ----------
    Li, Sun & Toh (2018), DOI 10.1137/16M1097572 (semismooth Newton steps on duals of regularised least squares).
    """
    assert problem.bounds is not None
    columns, target, bounds = problem.design, problem.target[:, 0], problem.bounds
    n_iter = 0
    while True:
        image = columns.rmatvec(u[:, None])[:, 0]
        w = bounds.clip(image / pull)
        fit = columns.matvec(w[:, None])[:, 0]
        residual = target - fit - u
        error = relative_near(float(residual @ residual), float(fit @ fit + pull @ w**2))
        if n_iter and not on_step(error, error):
            return DualPoint(w, u, n_iter)
        free = (w > bounds.lower) & (w < bounds.upper)
        if error <= tol or n_iter >= min(max_iter, MAX_STEPS) or np.count_nonzero(free) < len(u):
            return DualPoint(w, u, n_iter)
        step = solve(problem, free / pull, residual, min(FORCING, max(error, FORCING * tol / error)), monitor)
        if not np.isfinite(step).all():
            return DualPoint(w, u, n_iter)
        n_iter += 1
        u = u + _length(target - u, step, image, columns.rmatvec(step[:, None])[:, 0], pull, bounds) * step


def solve(problem: Problem, sq_scale: Vector, residual: Vector, share: float, monitor: Monitor) -> Vector:
    """Solve (I + A diag(sq_scale) A') s = residual, by conjugate gradients up to `share` of it; nan where that cannot be had"""
    scaled = problem.design.with_columns_scaled(sq_scale)
    if len(residual) > MAX_FACTOR:
        sub = replace(problem.restricted(scaled, dual=True), penalty=np.ones(1))
        size = np.array([residual @ residual])
        start, rest = np.zeros((len(residual), 1)), residual[:, None].copy()
        limit = max(1000, 10 * len(residual))
        return conjugate_gradient(sub, start, rest, Jacobi.of(sub), size, share, limit, monitor.within_step).x[:, 0]
    matrix = scaled.T.gram(monitor.go_on)
    if not monitor.go_on():
        return np.full(len(residual), np.nan)
    np.einsum("ii->i", matrix)[...] += 1.0
    with blas_for(len(residual)):
        factor, info = dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        step: Vector = dpotrs(factor, residual, lower=1)[0]
    return step if info == 0 else np.full(len(residual), np.nan)


def _length(rest: Vector, step: Vector, image: Vector, turn: Vector, pull: Vector, bounds: Bounds) -> float:
    """How far to go along `step`: `rest` is y - u, `image` A'u, `turn` A's; D is concave, its slope falls"""
    along, sq_step = float(rest @ step), float(step @ step)

    def slope(length: float) -> float:
        return along - length * sq_step - float(turn @ bounds.clip((image + length * turn) / pull))

    flat = FLAT * slope(0.0)
    low, high, length = 0.0, np.inf, 1.0
    for _ in range(MAX_TRIALS):
        here = slope(length)
        if abs(here) <= flat:
            break
        low, high = (length, high) if here > 0 else (low, length)
        length = 2 * length if high == np.inf else (low + high) / 2
    return length
