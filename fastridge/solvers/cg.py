"""Conjugate gradients on the small side, preconditioned, until the error is proven."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastridge.krylov import ROOM, First, Known, conjugate_gradient, known, most_steps, prove
from fastridge.operators.base import Vector
from fastridge.preconditioners import Preconditioner, preconditioner_of
from fastridge.problem import Check, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

CONTRACTION = 10.0
"""By which a refinement must make the error smaller for the next one: else CG makes more of the factor."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective by conjugate gradients on M x = b, for as many targets together as memory is set aside for

    CG stops by its Gauss-Radau bound, or by the duality gap r'r of a wide problem. The recursive residual of CG loses touch with
    the true one (kappa^2 in the normal equations), so the true one is computed at the end, and CG goes on from it where that does
    not prove the answer. Guaranteed: `error_bound`.

    With a float32 factor of the whole Gram matrix the answer is first refined by solves with it alone: one or two products do
    what takes CG four.

    `settings.start` is where it begins, or zero. However bad, it costs a product and no more than the steps from zero, about.

    References
    ----------
    Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; Meurant & Tichy (2013), DOI 10.1007/s11075-012-9591-9 (the bound).
    """
    same, start = np.ptp(problem.penalty) == 0, settings.start
    if settings.likely and start is not None and start.shape == problem.rhs.shape:
        given = start
        answer = Answer.in_parts(problem, settings.monitor, lambda targets, part: _checked(part, given[:, targets], settings))
        if (answer.error_bound <= settings.tol).all() or settings.monitor.stopped:
            return answer
    shared = preconditioner_of(problem, settings.fold, settings.monitor.go_on) if same else None
    if not settings.monitor.go_on():
        return Answer.zero(problem)
    if start is not None and start.shape != problem.rhs.shape:
        start = None

    def solve_part(targets: np.ndarray, part: Problem) -> Answer:
        told = replace(settings, start=None if start is None else np.ascontiguousarray(start[:, targets]))
        return _solve_together(part, preconditioner_of(part, 0) if shared is None else shared.keep(targets), told)

    return Answer.in_parts(problem, settings.monitor, solve_part)


def _checked(problem: Problem, start: Vector, settings: Settings) -> Answer:
    """The start as the answer, with what one product proves of it"""
    x = np.ascontiguousarray(start)
    check = problem.check(x)
    sq_bound = problem.sq_bound(check.residual)
    bound = relative_bound(sq_bound, check)
    settings.monitor.after_step(float(bound.max()), float(bound.max()))
    n_iter = np.zeros(x.shape[1], dtype=np.int64)
    return Answer(check.w, n_iter, np.minimum(relative(sq_bound, check.sq_size), bound), bound, check.sq_size, x=x)


def _solve_together(problem: Problem, preconditioner: Preconditioner, settings: Settings) -> Answer:
    c, k = problem.rhs.shape
    max_iter = most_steps(problem, settings)
    first = First.of(problem, settings.start)
    if settings.fold == 1 and first is None:
        point = _refined(problem, preconditioner, settings, max_iter)
        n_iter, history = np.full(k, len(point.history) - 1), point.history
        if point.proven or n_iter.max() >= max_iter or settings.monitor.stopped:
            return prove(problem, point.x, n_iter, preconditioner, settings, max_iter, point.check, point.known, history)
        if history[-1] < 1:  # a better start than zero
            x, residual, sq_size = point.x, point.check.residual.copy(), point.check.sq_size
        else:
            x, residual, sq_size = np.zeros((c, k)), problem.rhs.copy(), None
    else:
        n_iter, history, sq_size = np.zeros(k, dtype=np.int64), (), None
        x, residual = (np.zeros((c, k)), problem.rhs.copy()) if first is None else (first.x, first.residual)
    run = conjugate_gradient(
        problem,
        x,
        residual,
        preconditioner,
        sq_size,
        ROOM * settings.tol,
        max_iter - int(n_iter.max()),
        settings.monitor.after_step,
        first,
        hurried=True,
    )
    n_iter = n_iter + run.n_iter
    check = problem.check(run.x)
    answer = prove(
        problem, run.x, n_iter, preconditioner, settings, max_iter, check, known(problem, check, run), history + run.history
    )
    return replace(answer, workspace_bytes=answer.workspace_bytes + 4 * c * c * (settings.fold > 0))


@dataclass(frozen=True)
class _Point:
    """An answer, its check, what is known of its squared error, and the estimates of the errors of those before"""

    x: Vector
    check: Check
    known: Known
    history: tuple[float, ...]
    proven: bool


def _refined(problem: Problem, factor: Preconditioner, settings: Settings, max_iter: int) -> _Point:
    """Solve with a factor of M itself, rounded, and refine the answer while that makes its error much smaller"""
    x = factor.apply(problem.rhs)
    history: list[float] = []
    while True:
        check = problem.check(x)
        step = factor.apply(check.residual)
        of_residual = known(problem, check)
        with np.errstate(divide="ignore", invalid="ignore"):
            sq_bound = np.fmin(problem.sq_error(check.residual, step) / factor.smallest, of_residual.sq_bound)
        of_factor = of_residual if problem.wide else Known(sq_bound, sq_bound)
        history.append(float(relative(of_factor.sq_error, check.sq_size).max()))
        bound = relative_bound(of_factor.sq_bound, check)
        stop = not settings.monitor.after_step(history[-1], float(bound.max()))
        proven = bool((bound <= settings.tol).all())
        hopeful = history[-1] < 1 if len(history) == 1 else history[-1] <= history[-2] / CONTRACTION
        if proven or len(history) > max_iter or not hopeful or stop:
            return _Point(x, check, of_factor, tuple(history), proven)
        x = x + step
