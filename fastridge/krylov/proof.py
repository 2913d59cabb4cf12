"""From an answer to a proof: what its residual and the steps of CG tell of the error, and more steps where that is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastridge.krylov.iteration import PROOF_SHARE, PROOF_STEPS, Run, conjugate_gradient, most_steps
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, Vector, column_dots
from fastridge.preconditioners import Identity, Jacobi, Preconditioner, within_data
from fastridge.problem import ROUNDING, Check, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

ROOM = 0.95
"""Share of the tolerance that CG aims at; the rest is for rounding between the recursive residual and the true one."""
PLAIN_STEPS = 4
"""Of plain CG, from an answer that is right: as a rule none to two prove it."""
ENOUGH = 0.1
"""Of the size of an error, up to which a measurement of it may be uncertain."""
MAX_LEGS = 6
"""Each leg gains all the digits that the residual has; a problem that needs more is beyond float64 in this form."""


@dataclass(frozen=True)
class Known:
    """What is known of the squared H-norm errors of answers, (k,) each: bounds and estimates, inf where there is none"""

    sq_bound: Vector
    sq_error: Vector


def known(problem: Problem, check: Check, run: Run | None = None) -> Known:
    """What a residual computed from the data tells of the error, and the run of CG that ended with the answer

    Of a tall problem the bound of the run holds for the true residual too, but for what lies between the two.
    """
    sq_bound = problem.sq_bound(check.residual)
    if problem.wide:
        return Known(sq_bound, column_dots(check.residual, check.residual))
    if run is None:
        return Known(sq_bound, sq_bound)
    drift = np.sqrt(problem.sq_bound(check.residual - run.residual))
    sq_bound = np.fmin((np.sqrt(run.sq_bound) + drift) ** 2, sq_bound)
    return Known(sq_bound, np.where(problem.penalty > 0, np.fmin(run.sq_error, sq_bound), np.inf))


def prove(
    problem: Problem,
    x: Vector,
    n_iter: np.ndarray,
    preconditioner: Preconditioner,
    settings: Settings,
    max_iter: int,
    check: Check,
    told: Known,
    history: tuple[float, ...] = (),
) -> Answer:
    """Go on from the answers `x`, (c, k), that what is known of them does not prove, until it does

    CG solves M e = g, with g the residual computed from the data: plain, with the least eigenvalue alpha, which proves an answer
    that is right within a few steps and mends one that is wrong; then with the preconditioner (residual replacement). The error
    of the recurrences is small there, since e is. Where alpha = 0 nothing is proven, and CG goes on until its estimate passes.

    Parameters
    ----------
    x, n_iter : (c, k), (k,)
        Both are changed in place.
    check : Check
        Of x.

    References
    ----------
    van der Vorst & Ye (2000), DOI 10.1137/S1064827599353865 (residual replacement).
    """
    tol, wide, provable = settings.tol, problem.wide, problem.penalty > 0
    sq_bound, sq_error = told.sq_bound.copy(), told.sq_error.copy()
    budget = PROOF_STEPS + int(n_iter.max()) // PROOF_SHARE

    def passed() -> Array:
        of_estimate = relative(sq_error, check.sq_size)
        return np.where(provable, relative_bound(sq_bound, check), of_estimate) <= tol

    for leg in range(MAX_LEGS):
        # What the tolerance leaves once rounding is taken off, which no step makes smaller.
        aim = np.where(provable, ROOM * (tol - relative(check.rounding**2, check.sq_size)), ROOM * tol)
        failed = ~passed()
        stalled = bool((failed & ~(aim > 0)).any())
        todo, left = np.flatnonzero(failed & (aim > 0)), max_iter - int(n_iter.max())
        if not len(todo) or left <= 0 or settings.monitor.stopped:
            break
        some = problem if len(todo) == len(failed) else problem.select(todo, problem.penalty[todo])
        plain = leg % 2 == 0 and not wide and bool(provable[todo].all())
        inner, steps = (Identity.of(some), PLAIN_STEPS) if plain else (preconditioner.keep(todo), 4 * budget)
        at, residual = (np.ascontiguousarray(v[:, todo]) for v in (x, check.residual))
        go_on = settings.monitor.after_step
        run = conjugate_gradient(some, at, residual, inner, check.sq_size[todo], aim[todo], min(left, steps), go_on)
        x[:, todo], history = run.x, history + run.history
        n_iter[todo] += run.n_iter
        if not wide:
            sq_bound[todo] = (np.sqrt(run.sq_bound) + recurrence_drift(some, run)) ** 2
            sq_error[todo] = np.fmin(run.sq_error, sq_bound[todo])
            if passed().all():
                break
        check = problem.check(x)
        now = known(problem, check)
        sq_bound, sq_error = (now.sq_bound, now.sq_error) if wide else np.fmin((sq_bound, sq_error), now.sq_bound)
    else:
        stalled = not passed().all()
    return Answer(
        check.w if wide else x,
        n_iter,
        relative(
            np.where(provable & passed(), sq_bound, sq_error), check.sq_size
        ),  # once a bound does, it is the better estimate
        np.where(provable, relative_bound(sq_bound, check), np.inf),
        check.sq_size,
        stalled=stalled,
        workspace_bytes=8 * x.size * 7,
        history=history,
        x=x,
    )


def settle(
    problem: Problem,
    penalties: Vector,
    n_iter: np.ndarray,
    settings: Settings,
    history: tuple[float, ...],
    workspace_bytes: int,
    answers: Callable[[slice, Problem], tuple[Vector, Check]],
) -> Answer:
    """Prove the answers at `penalties`, (k,), of the one target, as many together as memory is set aside for

    `answers` gives those at some of the penalties, (c, some), and their check.
    """
    k, size = len(penalties), problem.targets_at_once

    def parts() -> Iterator[Answer]:
        for lo in range(0, k, size):
            part = slice(lo, min(lo + size, k))
            here = problem.select(np.zeros(part.stop - lo, dtype=np.intp), penalties[part])
            x, check = answers(part, here)
            jacobi = within_data(Jacobi.of(here), here)
            yield prove(here, x, n_iter[part], jacobi, settings, most_steps(here, settings), check, known(here, check))

    answer = Answer.joined(parts(), (problem.design.shape[1], k))
    return replace(answer, workspace_bytes=workspace_bytes, history=history + answer.history)


def measure(problem: Problem, check: Check, max_iter: int, monitor: Monitor) -> Vector:
    """Return a bound of the relative error of an answer, (k,), by CG on M e = residual: the size of e, and what is left

    It ends where the bound is at most a few per cent above that size.
    """
    sq_bound = problem.sq_bound(check.residual)
    plain = replace(problem, sq_fitted=None)  # e is of the small side alone
    run = conjugate_gradient(
        plain,
        np.zeros_like(check.residual),
        check.residual.copy(),
        Jacobi.of(problem),
        None,
        ENOUGH,
        max_iter,
        monitor.within_step,
    )
    return relative(np.minimum(run.sq_gained + run.sq_bound, sq_bound), check.sq_size)


def recurrence_drift(problem: Problem, run: Run) -> Vector:
    """Bound of ||r - (b - M x)|| in the M^-1-norm after a run from a residual that was computed, (k,)

    A step gamma p has the M-norm sqrt(gamma r'z); the rounding of M p is at most that of two products with A, of which the second
    costs 1 / sqrt(alpha).
    """
    steps = np.sqrt(run.n_iter * run.sq_gained)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 4 * ROUNDING * problem.frobenius * np.where(steps > 0, steps / np.sqrt(problem.penalty), 0.0)
