"""Conjugate gradients with Jacobi scaling on the small side, restarted from the true residual until the error is certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastridge.krylov import PROBE_RATIO, SAFETY, First, conjugate_gradient, relative_bound
from fastridge.lines import Vector
from fastridge.preconditioners import Preconditioner, preconditioner_of
from fastridge.problem import Check, Problem, relative
from fastridge.solution import Answer, Settings

MAX_RESTARTS = 5
"""Each gains all the digits that the residual has; a problem that needs more is beyond float64 in this form."""
CONTRACTION = 10.0
"""By which a refinement must make the error smaller for the next one: else CG makes more of the factor."""
ROOM = 0.95
"""Share of the tolerance that CG aims at; the rest is for rounding between the recursive residual and the true one."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective by conjugate gradients on M x = b, for as many targets together as memory is set aside for

    Guaranteed: `error_bound` (the duality gap of a wide problem, else Gauss-Radau or the gradient, whichever is smaller). Where
    alpha is small the bound is loose and the stop is by the estimate.

    With a float32 factor of the whole Gram matrix the answer is first refined by solves with it alone: one or two products do
    what takes CG four.

    The recursive residual of CG loses touch with the true one (kappa^2 in the normal equations), so the true one is computed
    at return. Unless the bound has passed, a step from it shows whether more was left than the estimate says, such as a direction
    that CG had not met; if so CG goes on from there (residual replacement).

    `settings.start` is where it begins, or zero. However bad, it costs a product and no more than the steps from zero, about.

    References
    ----------
    Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; van der Vorst & Ye (2000), DOI 10.1137/S1064827599353865.
    """
    same, start = np.ptp(problem.penalty) == 0, settings.start
    shared = preconditioner_of(problem, settings.fold) if same else None
    if start is not None and start.shape != problem.rhs.shape:
        start = None

    def solve_part(targets: np.ndarray, part: Problem) -> Answer:
        told = replace(settings, start=None if start is None else np.ascontiguousarray(start[:, targets]))
        return _solve_together(part, preconditioner_of(part, 0) if shared is None else shared.keep(targets), told)

    parts = (solve_part(targets, part) for targets, part in problem.chunks())
    return Answer.joined(parts, (problem.design.shape[1], len(problem.penalty)))


def _solve_together(problem: Problem, preconditioner: Preconditioner, settings: Settings) -> Answer:
    c, k = problem.rhs.shape
    max_iter = max(1000, 10 * c) if settings.max_iter is None else settings.max_iter
    first = First.of(problem, settings.start)
    x, residual, sq_size = np.zeros((c, k)), problem.rhs.copy(), None
    if first is not None:
        x, residual = first.x, first.residual
    n_iter, stalled, done = np.zeros(k, dtype=np.int64), False, False
    history: tuple[float, ...] = ()
    if settings.fold == 1 and first is None:
        refined, check, sq_error, sq_bound, history = _refined(problem, preconditioner, settings, max_iter)
        n_iter += len(history) - 1
        done = bool((sq_error <= settings.tol**2 * check.sq_size).all()) or n_iter.max() >= max_iter
        if done or history[-1] < 1:  # the answer, or a better start than zero
            x, residual, sq_size = refined, check.residual.copy(), check.sq_size
    for _ in range(0 if done else MAX_RESTARTS + 1):
        left = max_iter - int(n_iter.max())
        run = conjugate_gradient(
            problem, x, residual, preconditioner, sq_size, ROOM * settings.tol, left, settings.on_step, first
        )
        first = None
        x, n_iter, history = run.x, n_iter + run.n_iter, history + run.history
        check = problem.check(x)
        limit = settings.tol**2 * check.sq_size
        sq_drift = problem.sq_bound(check.residual - run.residual)
        sq_bound = np.minimum((np.sqrt(run.sq_bound) + np.sqrt(sq_drift)) ** 2, problem.sq_bound(check.residual))
        sq_error = sq_bound if problem.wide else np.minimum(run.sq_error, sq_bound)
        if (sq_bound <= limit).all() or n_iter.max() >= max_iter:
            break
        residual, sq_size = check.residual.copy(), check.sq_size
        if problem.wide:
            continue  # the bound is the estimate
        if run.expected:
            solved = preconditioner.apply(residual)
            sq_seen = SAFETY**2 / run.expected * problem.sq_error(residual, solved)
            sq_error = np.minimum(np.maximum(run.sq_error, sq_seen), sq_bound)
            if (sq_error <= limit).all():
                break
            continue
        probe = conjugate_gradient(problem, x, residual, preconditioner, sq_size, settings.tol, 1)
        x, n_iter, residual = probe.x, n_iter + 1, probe.residual
        sq_error = np.minimum(np.maximum(run.sq_error, PROBE_RATIO * probe.sq_first_error), sq_bound)
        if (sq_error <= limit).all() or n_iter.max() >= max_iter:
            break
    else:
        stalled = not done
    return Answer(
        check.w if problem.wide else x,
        n_iter,
        relative(sq_error, check.sq_size),
        relative_bound(sq_bound, check),
        check.sq_size,
        stalled=stalled,
        workspace_bytes=8 * c * k * 7 + 4 * c * c * (settings.fold > 0),
        history=history,
        x=x,
    )


def _refined(
    problem: Problem, factor: Preconditioner, settings: Settings, max_iter: int
) -> tuple[Vector, Check, Vector, Vector, tuple[float, ...]]:
    """Solve with a factor of M itself, rounded, and refine the answer while that makes its error much smaller

    Return it, its check, estimate and bound of its squared error, and the estimates after every solve. The first is the bound
    unless what the factor says has fallen as only with a good factor it does.
    """
    x = factor.apply(problem.rhs)
    history: list[float] = []
    while True:
        check = problem.check(x)
        step = factor.apply(check.residual)
        sq_bound = problem.sq_bound(check.residual)
        sq_seen = sq_bound if problem.wide else np.minimum(SAFETY**2 * problem.sq_error(check.residual, step), sq_bound)
        history.append(float(relative(sq_seen, check.sq_size).max()))
        if settings.on_step is not None:
            settings.on_step(len(history) - 1, history[-1])
        falling = len(history) > 1 and history[-1] <= history[-2] / CONTRACTION
        proven = bool((sq_bound <= settings.tol**2 * check.sq_size).all())
        hopeful = history[-1] < 1 if len(history) == 1 else falling
        if proven or (falling and history[-1] <= settings.tol) or len(history) > max_iter or not hopeful:
            break
        x += step
    return x, check, sq_seen if falling else sq_bound, sq_bound, tuple(history)
