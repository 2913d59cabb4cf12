"""What is proven of the error of a point within the bounds: by the duality gap, and by the step that leads on from it.

Any n-vector u proves ||w - w*||_H^2 <= ||y - A w - u||^2 + sum_j gain_j(A'u - alpha D w), a gain being the most that moving
w_j within its bounds may bring: the duality gap. With u = y - A w that is the separable gap. For u = y - A (w + s), where s
solves H_QQ s = g on some coordinates Q, the terms of those come to g'H_QQ^-1 g, which a factor of H_QQ knows where division
by alpha would make much of rounding.
"""

from __future__ import annotations

import numpy as np

from fastridge.factor import BACKWARD_ERROR
from fastridge.operators.base import Array, Vector
from fastridge.problem import ROUNDING
from fastridge.solvers.bounded.newton import PROXIMAL, Newton, free, norm_over
from fastridge.solvers.bounded.records import Look, Step

MAX_ADDITIONS = 5
"""A proof adds coordinates to those that it solves for at most this often."""
LOOSE = 0.1
"""The gaps of all coordinates may take this share of the tolerance, each its part, before one is looked at otherwise."""


def gains(newton: Newton, g: Vector, w: Vector, doubt: Vector, least: float = 0.0) -> Vector:
    """Max over v_j in [l_j, u_j] and e_j of size doubt_j of 2 (g_j + e_j) (v_j - w_j) - alpha d_j (v_j - w_j)^2: (p,)

    Penalties count as this share of the squared norm of the column at `least`.
    """
    pull = np.maximum(newton.pull, least * newton.problem.design.sq_norms) if least else newton.pull
    ends = np.array([g - doubt, g + doubt])
    with np.errstate(all="ignore"):
        d = np.clip(np.where(ends == 0, 0.0, ends / pull), newton.lower - w, newton.upper - w)
        # Where neither penalty nor bound is in the way, inf.
        most = np.where(np.isinf(d), np.inf, d * (2 * ends - pull * d))
    gain: Vector = np.maximum(most.max(axis=0), 0.0)
    return gain


def inspect(newton: Newton, w: Vector) -> tuple[Look, Vector]:
    """Return what the data say about w, and y - A w"""
    design, target = newton.problem.design, newton.problem.target[:, 0]
    fit = design.matvec(w[:, None])[:, 0]
    rest = target - fit
    g = design.rmatvec(rest[:, None])[:, 0] - newton.pull * w
    sq_size = float(fit @ fit + np.sum((np.sqrt(newton.pull) * w) ** 2))
    # Of y - A w, in the 2-norm: the H-norm error that it hides, or, where penalties are large, part of the doubt about g.
    off = float(ROUNDING * (newton.norms @ np.abs(w) + np.linalg.norm(target)))
    doubt, hidden = newton.doubt(rest, w), off
    inside, drawn = free(g, w, newton.lower, newton.upper)
    at_bound = (newton.lower < newton.upper) & ~inside
    if not (inside | drawn | (at_bound & (np.abs(g) <= doubt + off * newton.norms) & (newton.norms > 0))).any():
        # No rounding can turn a gradient that pushes every coordinate against its bound: w is the answer.
        return Look(g, sq_size, True, doubt, np.zeros(len(w), dtype=bool), off, 0.0, 0.0), rest
    if norm_over(newton.norms, newton.pull) < 1:
        doubt += off * newton.norms
        hidden = 0.0
    total = max(float(gains(newton, g, w, doubt).sum()), float(np.finfo(np.float64).tiny))  # squares may underflow
    blurred = at_bound & ~drawn & (np.abs(g) <= doubt)
    return Look(g, sq_size, True, doubt, blurred, off, hidden, float((np.sqrt(total) + hidden) ** 2)), rest


def prove(newton: Newton, look: Look, w: Vector, step: Step, tol: float) -> tuple[float, float]:
    """Estimate and bound of the squared error of w, once the step from there is known"""
    inside, drawn = free(look.g, w, newton.lower, newton.upper)
    felt = inside | drawn | look.blurred
    sq_error, sq_bound = step.sq_error, min(look.sq_bound, newton.sq_ahead(look, w, step))

    def passes() -> bool:
        return look.error(sq_bound) <= tol

    if not passes():
        found = _by_step(newton, look, w, step, felt, tol)
        sq_error, sq_bound = found[0], min(sq_bound, found[1])
    if not passes():
        # Coordinates that have next to no penalty by a factor, the others by the gap.
        loose = felt & (gains(newton, look.g, w, look.doubt) > LOOSE * tol**2 * look.sq_size / len(w))
        loose = loose if newton.factors(loose) else loose & (newton.pull == 0)
        if (loose != step.chosen).any() and loose.any() and newton.factors(loose):
            part = newton.step(np.where(loose, look.g, 0.0), loose, look.sq_size, tol)
            sq_bound = min(sq_bound, _by_step(newton, look, w, part, felt, tol)[1])
    return min(sq_error, sq_bound), sq_bound


def _by_step(newton: Newton, look: Look, w: Vector, step: Step, felt: Array, tol: float) -> tuple[float, float]:
    """Estimate and bound of the squared error of w by the dual point of a step, coordinates added that turn out to matter

    Those of the step on which the gradient is not `felt` must be pushed against their bounds.
    """
    sq_error, sq_bound = np.inf, np.inf
    rounding = BACKWARD_ERROR * np.sqrt(max(newton.problem.design.shape))
    for _ in range(MAX_ADDITIONS):
        if step.guess:
            break
        chosen, s = step.chosen, step.s
        image = newton.image(s)
        ahead, off_step = look.g - image, ~chosen
        # Of next to no penalty rounding makes too much for an estimate.
        seen = gains(newton, ahead, w, np.zeros(len(w)), PROXIMAL**1.5)
        sq_error = min(sq_error, step.sq_error + float(seen[off_step].sum()))
        if not step.sq_upper < np.inf:
            break
        sq_upper, left = step.sq_upper, step.left
        pull = newton.pull if step.pull is None else step.pull
        if step.residual is not None:
            g = np.where(chosen & felt, look.g, 0.0)
            drift = np.where(chosen, g - image - pull * s - step.residual, 0.0)
            left += norm_over(drift, pull)
            sq_upper = (1 + step.added) * (max(float(s @ (2 * g - image - pull * s)), 0.0) + left**2)
            left += step.added * np.sqrt(sq_upper)
        # What an error of g moves the solution by.
        doubt = np.where(chosen & felt, look.doubt, 0.0)
        moved = np.sqrt(1 + step.added) * norm_over(doubt, pull)
        if step.least > 0:
            moved = min(moved, norm_over(doubt, newton.curvatures * step.least))
        blur = look.doubt + newton.norms * (left + moved + rounding * float(newton.norms @ np.abs(s)))
        more = np.where(off_step, gains(newton, ahead, w, blur), 0.0)
        total = (np.sqrt(sq_upper) + moved) ** 2 + float(more.sum())
        sq_bound = min(sq_bound, float((np.sqrt(total) + look.hidden) ** 2))
        if look.error(sq_bound) <= tol or not (more > 0).any():
            break
        wanted = chosen | (more > 0)
        step = newton.step(np.where(wanted & felt, look.g, 0.0), wanted, look.sq_size, tol)
    return sq_error, sq_bound
