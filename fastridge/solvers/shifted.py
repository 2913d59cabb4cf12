"""Multi-shift conjugate gradients: one Krylov space of B'B serves every penalty of one target."""

from __future__ import annotations

import numpy as np

from fastridge.krylov.estimate import EnergyEstimate
from fastridge.krylov.iteration import most_steps
from fastridge.krylov.proof import ROOM, settle
from fastridge.operators.base import Vector, column_dots
from fastridge.problem import Check, Problem, relative
from fastridge.solution import Answer, Settings

BUFFER = 32
"""Residuals kept before they are added to the answers of all penalties, in one matrix product."""
SPREAD = 10.0
"""Ratio of the largest to the smallest entry of the diagonal of M up to which Jacobi scaling is not worth the shared space."""


def suits(problem: Problem, penalties: Vector) -> bool:
    """Whether Jacobi scaling, which would end the sharing, has little to offer: the diagonal of M is nearly constant"""
    diagonal = problem.side.sq_norms + penalties.min()
    return bool(diagonal.max() <= SPREAD * diagonal.min())


def solve(problem: Problem, penalties: Vector, settings: Settings) -> Answer:
    """Minimise the ridge objective of the one target of `problem` at every one of `penalties`, (k,), > 0

    CG runs at the smallest penalty. Residuals at the others are multiples zeta of its residuals, so that a step costs one product
    however many penalties there are. Those that have converged are left behind: by the bound zeta^2 r'r of a wide problem, else
    by the Gauss-Radau bound. At the end residuals are computed from the data, and CG goes on from the answers that those do not
    prove; which failed is in `error_bound`, and `x` is where to go on from.

    References
    ----------
    Frommer & Maass (1999), DOI 10.1137/S1064827596313310; van den Eshof & Sleijpen (2004), DOI 10.1016/j.apnum.2003.11.010;
    Jegerlehner (1996), arXiv:hep-lat/9612014 (the recurrences).
    """
    b = problem.rhs
    c, k = len(b), len(penalties)
    max_iter = most_steps(problem, settings)
    seed = penalties.min(keepdims=True)
    shift = penalties - seed
    r, p = b.copy(), b.copy()
    sq_r = float(column_dots(r, r)[0])
    sq_target = float(problem.sq_target[0])
    # Answers and directions of the penalties that are left, and their coefficients in the residuals kept since: the last row is
    # that of `directions`.
    x, directions = np.zeros((c, k)), np.zeros((c, k))
    kept = np.empty((c, BUFFER))
    answer_of, direction_of = np.zeros((BUFFER + 1, k)), np.zeros((BUFFER + 1, k))
    active, alive = np.arange(k), np.ones(k, dtype=bool)
    zeta, ratio, beta_of = np.ones(k), np.ones(k), np.zeros(k)
    estimate = EnergyEstimate(np.full(k, sq_r), penalties.copy())
    n_iter = np.zeros(k, dtype=np.int64)
    history: list[float] = []
    n_kept, last_gamma, last_beta, step = 0, 1.0, 0.0, 0
    end = np.zeros((c, k))

    def flush(n_kept: int) -> None:
        nonlocal x, directions
        block = kept[:, :n_kept]
        x += directions * answer_of[-1]
        x += block @ answer_of[:n_kept]
        directions *= direction_of[-1]
        directions += block @ direction_of[:n_kept]
        answer_of[:], direction_of[:] = 0.0, 0.0
        direction_of[-1] = 1.0

    direction_of[-1] = 1.0
    while sq_r > 0 and step < max_iter:
        kept[:, n_kept] = r[:, 0]
        direction_of *= beta_of
        direction_of[n_kept] += zeta
        n_kept += 1
        q = problem.normal(p, seed)
        curvature = float(column_dots(p, q)[0])
        if not curvature > 0:
            break
        gamma = sq_r / curvature
        r -= gamma * q
        sq_new = float(column_dots(r, r)[0])
        beta = sq_new / sq_r
        # rho = zeta_new / zeta, in (0, 1]: no cancellation.
        rho = 1.0 / (1.0 + gamma * shift[active] + gamma * last_beta / last_gamma * (1.0 - ratio))
        gamma_of = gamma * rho
        answer_of += gamma_of * alive * direction_of
        zeta_new = zeta * rho
        estimate.update(gamma_of, zeta**2 * sq_r, zeta_new**2 * sq_new)
        step += 1
        alpha = penalties[active]
        if problem.wide:
            # ||w*||_H^2 = y'y - alpha ||z*||_M^2, and ||z||_M^2 is within r'r / alpha of the last.
            sq_bound = sq_error = zeta_new**2 * sq_new
            size = np.maximum(sq_target - alpha * estimate.total - sq_bound, 0.0)
        else:
            sq_bound, sq_error, size = estimate.sq_bound, estimate.sq_error, estimate.total
        history.append(float(relative(sq_error, size)[alive].max()))
        bound = relative(sq_bound, size)
        stop = not settings.monitor.after_step(history[-1], float(bound[alive].max()))
        zeta, ratio, beta_of = zeta_new, rho, beta * rho**2
        done = alive & ((bound <= ROOM * settings.tol) | (zeta**2 * sq_new == 0))
        n_iter[active[done]] = step
        alive &= ~done
        if n_kept == BUFFER or not alive.any():  # those that are done stay unchanged until then
            flush(n_kept)
            n_kept = 0
            end[:, active[~alive]] = x[:, ~alive]
            if not alive.any():
                active = active[:0]
                break
            if not alive.all():
                active, zeta, ratio, beta_of = active[alive], zeta[alive], ratio[alive], beta_of[alive]
                x, directions = x[:, alive], directions[:, alive]
                answer_of, direction_of = answer_of[:, alive], direction_of[:, alive]
                estimate.keep(np.flatnonzero(alive))
                alive = alive[alive]
        if stop:
            break
        p *= beta
        p += r
        sq_r, last_gamma, last_beta = sq_new, gamma, beta
    if len(active):  # the limit, a stop, a residual of zero, or not a direction of positive curvature left
        flush(n_kept)
        end[:, active] = x
        n_iter[active[alive]] = step

    def answers(part: slice, here: Problem) -> tuple[Vector, Check]:
        x = np.ascontiguousarray(end[:, part])
        return x, here.check(x)

    return settle(problem, penalties, n_iter, settings, tuple(history), 8 * c * (2 * k + BUFFER + 4), answers)
