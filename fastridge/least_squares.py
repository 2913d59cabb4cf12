"""Whether an answer at alpha = 0, of which no error is certified, has plainly failed."""

from __future__ import annotations

import numpy as np

from fastridge.operators.base import Vector, column_dots
from fastridge.problem import ROUNDING, Problem

LOOK_STEPS = 12
"""Steps of conjugate gradients in search of a direction in which an answer at alpha = 0 is wrong."""


def plainly_failed(problem: Problem, w: Vector, tol: float) -> bool:
    """Whether coefficients of the problem, (p, k), are certain to be farther from all least squares solutions than `tol`

    Only targets with alpha = 0 are looked at. For every v the error of w in the H-norm, H = A'A, is at least v'g / ||A v|| with
    g = A'(y - A w), and ||w*||_H <= ||y||. As v serve the first iterates of conjugate gradients on H v = g. What rounding may
    have added to g is taken off; the residual is computed with twice the digits unless the data are large. Where nothing is
    found, nothing is said.
    """
    targets = np.flatnonzero(problem.penalty == 0)
    if not len(targets):
        return False
    design, d = problem.design, problem.penalty_weights
    goal, w = design.take_targets(problem.target, targets), np.ascontiguousarray(w[:, targets])
    if not np.isfinite(w).all():
        return True
    norms, size = np.sqrt(design.sq_read_norms)[:, None], np.sqrt(design.sq_target(goal))
    doubt = ROUNDING * norms * (np.sqrt(design.sq_image(w)) + 2 * size)  # of the residual and of y
    precise = design.precise_gradient(w, goal)
    g = design.gradient(w, goal) if precise is None else precise
    if precise is None:
        doubt += ROUNDING * norms * (norms * np.abs(w)).sum(axis=0)
    inverse = np.divide(1.0, design.sq_norms[:, None], out=np.zeros_like(norms), where=design.sq_norms[:, None] > 0)
    if d is not None and d.ndim == 1:
        inverse[np.isinf(d)] = 0.0
    v, rest, z = np.zeros_like(g), g.copy(), inverse * g
    direction, slope = z, column_dots(g, z)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(LOOK_STEPS):
            image = design.normal(direction)
            length = np.where(slope > 0, slope / column_dots(direction, image), 0.0)
            if not (np.isfinite(length) & (length > 0)).any():
                break
            v = v + length * direction
            gain = column_dots(v, g) - (doubt * np.abs(v)).sum(axis=0)
            if (gain > tol * size * np.sqrt(column_dots(v, g))).any():
                # H v is g on the way so far, up to rounding, which this looks through.
                reach = np.sqrt(design.sq_image(v)) + ROUNDING * (norms * np.abs(v)).sum(axis=0)
                if (gain > tol * size * reach).any():
                    return True
            rest -= length * image
            z = inverse * rest
            before, slope = slope, column_dots(rest, z)
            direction = z + np.where(before > 0, slope / before, 0.0) * direction
    return False
