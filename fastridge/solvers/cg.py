"""Conjugate gradients on the small side, preconditioned, until the error is proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastridge.krylov.iteration import First, Run, conjugate_gradient, most_steps
from fastridge.krylov.proof import ROOM, Known, known, prove
from fastridge.monitor import Monitor, decay, steps_to_come
from fastridge.operators.base import Vector
from fastridge.preconditioners import MIN_SIZE, DiagonalPlusLowRank, Factor, Jacobi, Preconditioner, within_data
from fastridge.problem import Check, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

CONTRACTION = 10.0
"""By which a refinement must make the error smaller for the next one: else CG makes more of the factor."""
LOOK_DENSE, LOOK_SPARSE = (4, 20), (256, 256)
"""The step at which CG first looks at its rate with the diagonal, and the steps to come that are worth a better preconditioner:
of dense data that costs as much as some eight steps; of sparse ones its rate tells nothing earlier."""


def solve(problem: Problem, settings: Settings) -> Answer:
    """Minimise the ridge objective by conjugate gradients on M x = b, for as many targets together as memory is set aside for

    CG stops by its Gauss-Radau bound, or by the duality gap r'r of a wide problem. The recursive residual of CG loses touch with
    the true one (kappa^2 in the normal equations), so the true one is computed at the end, and CG goes on from it where that does
    not prove the answer. Guaranteed: `error_bound`.

    With a float32 factor of the whole Gram matrix the answer is first refined by solves with it alone: one or two products do
    what takes CG four. Without a factor CG begins with the diagonal as its preconditioner, and takes a better one where the rate
    it sees says that this is worth its price.

    `settings.start` is where it begins, or zero. However bad, it costs a product and no more than the steps from zero, about.

    References
    ----------
    Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; Meurant & Tichy (2013), DOI 10.1007/s11075-012-9591-9 (the bound).
    """
    start = settings.start
    if settings.likely and start is not None and start.shape == problem.rhs.shape:
        given = start
        answer = Answer.in_parts(problem, settings.monitor, lambda targets, part: _checked(part, given[:, targets], settings))
        if (answer.error_bound <= settings.tol).all() or settings.monitor.stopped:
            return answer
    factor = Factor.of_gram(problem, settings.fold, settings.monitor.go_on) if settings.fold else None
    if not settings.monitor.go_on():
        return Answer.zero(problem)
    if start is not None and start.shape != problem.rhs.shape:
        start = None

    def solve_part(targets: np.ndarray, part: Problem) -> Answer:
        told = replace(settings, start=None if start is None else np.ascontiguousarray(start[:, targets]))
        return _solve_together(part, None if factor is None else factor.keep(targets), told)

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


def _solve_together(problem: Problem, factor: Factor | None, settings: Settings) -> Answer:
    c, k = problem.rhs.shape
    max_iter = most_steps(problem, settings)
    first = First.of(problem, settings.start)
    if first is None:
        x, residual = np.zeros((c, k)), problem.rhs.copy()
    else:
        x, residual = first.x, first.residual
    if factor is None:
        run, preconditioner, note = _climb(problem, x, residual, first, settings, max_iter)
        n_iter, history = run.n_iter, run.history
    else:
        preconditioner, note, sq_size = within_data(factor, problem), "", None
        n_iter, history = np.zeros(k, dtype=np.int64), ()
        if settings.fold == 1 and first is None:
            point = _refined(problem, preconditioner, settings, max_iter)
            n_iter, history = np.full(k, len(point.history) - 1), point.history
            if point.proven or n_iter.max() >= max_iter or settings.monitor.stopped:
                return prove(problem, point.x, n_iter, preconditioner, settings, max_iter, point.check, point.known, history)
            if history[-1] < 1:  # a better start than zero
                x, residual, sq_size = point.x, point.check.residual.copy(), point.check.sq_size
        left, go_on = max_iter - int(n_iter.max()), settings.monitor.after_step
        run = conjugate_gradient(
            problem, x, residual, preconditioner, sq_size, ROOM * settings.tol, left, go_on, first, hurried=True
        )
        n_iter, history = n_iter + run.n_iter, history + run.history
    check = problem.check(run.x)
    answer = prove(problem, run.x, n_iter, preconditioner, settings, max_iter, check, known(problem, check, run), history)
    return replace(answer, note=note, workspace_bytes=answer.workspace_bytes + 4 * c * c * (factor is not None))


class _Watch:
    """What CG asks after every step: the monitor, and at the `window`-th step, twice and four times that, whether to `turn`

    Attributes
    ----------
    errors : list of float
        The least so far, after every step: of residuals, some steps are larger than those before.
    turned : bool
        Whether CG was told to stop since `turn`, which is given these errors, said so.
    """

    def __init__(self, monitor: Monitor, window: int, turn: Callable[[list[float]], bool]) -> None:
        self.monitor, self.window, self.turn = monitor, window, turn
        self.errors: list[float] = []
        self.turned = False

    def after_step(self, error: float, error_bound: float) -> bool:
        """Whether to go on"""
        self.errors.append(min(error, self.errors[-1]) if self.errors else error)
        if not self.monitor.after_step(error, error_bound):
            return False
        if len(self.errors) == self.window:
            self.window *= 2
            self.turned = self.turn(self.errors)
        return not self.turned


def _climb(
    problem: Problem, x: Vector, residual: Vector, first: First | None, settings: Settings, max_iter: int
) -> tuple[Run, Preconditioner, str]:
    """Run CG with the diagonal; with a low-rank correction where the steps to come are worth its price

    What that does to the rate is not known before, so after as many steps as CG took with the diagonal the rates are compared,
    and CG returns to the diagonal if that was faster. Also returns the preconditioner that CG ended with, and what to say of it.
    """
    tol, monitor = settings.tol, settings.monitor
    jacobi = within_data(Jacobi.of(problem), problem)
    window, worth = LOOK_SPARSE if problem.design.traits.sparse else LOOK_DENSE
    untried = len(problem.rhs) >= MIN_SIZE and np.ptp(problem.penalty) == 0
    found: DiagonalPlusLowRank | None = None

    def improve(errors: list[float]) -> bool:
        nonlocal untried, found
        if untried and steps_to_come(errors, tol) > worth:
            untried, found = False, DiagonalPlusLowRank.of(problem)
        return found is not None

    watch = _Watch(monitor, window, improve)
    run = conjugate_gradient(problem, x, residual, jacobi, None, ROOM * tol, max_iter, watch.after_step, first, hurried=True)
    if found is None or not watch.turned:
        return run, jacobi, ""
    n_tried, expected = len(watch.errors), steps_to_come(watch.errors, tol)
    more = f"{expected:.0f}" if expected < np.inf else "endlessly many"
    note = f"after {n_tried} steps the diagonal would take {more} more, so on with {found}"
    better = within_data(found, problem)
    sq_first = 0.0 if first is None else first.sq_size

    def slower(errors: list[float]) -> bool:
        return len(errors) == n_tried and decay(errors) < decay(watch.errors)

    trial = _Watch(monitor, n_tried, slower)
    run = _continued(problem, run, better, sq_first, tol, max_iter, trial.after_step)
    if not trial.turned:
        return run, better, note
    run = _continued(problem, run, jacobi, sq_first, tol, max_iter, monitor.after_step)
    return run, jacobi, f"{note}, which was slower, and back to the diagonal"


def _continued(
    problem: Problem,
    run: Run,
    preconditioner: Preconditioner,
    sq_first: Vector | float,
    tol: float,
    max_iter: int,
    go_on: Callable[[float, float], bool],
) -> Run:
    """Go on from where a run from an iterate of squared size `sq_first` ended, with another preconditioner

    CG's iterates are nearest to the answer in all that they were searched in, so that what the run gained adds to that size.
    """
    todo = np.flatnonzero(relative(run.sq_bound, run.sq_size) > ROOM * tol)
    left = max_iter - int(run.n_iter.max())
    if not len(todo) or left <= 0:
        return run
    some = problem if len(todo) == problem.rhs.shape[1] else problem.select(todo, problem.penalty[todo])
    x, residual = (np.ascontiguousarray(v[:, todo]) for v in (run.x, run.residual))
    first = First(x, residual, some.rhs, (sq_first + run.sq_gained)[todo])
    inner = preconditioner.keep(todo)
    more = conjugate_gradient(some, x, residual, inner, None, ROOM * tol, left, go_on, first, hurried=True)
    joined = replace(run, history=run.history + more.history)
    for name in ("x", "residual", "sq_error", "sq_bound", "sq_size"):
        getattr(joined, name)[..., todo] = getattr(more, name)
    joined.n_iter[todo] += more.n_iter
    joined.sq_gained[todo] += more.sq_gained
    return joined


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
