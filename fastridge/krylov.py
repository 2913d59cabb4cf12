"""Conjugate gradients for several right-hand sides at once, and what their coefficients prove about the error.

For H x = b, CG's step lengths give the decrease of the squared error exactly: e_k^2 - e_{k+1}^2 = gamma_k r_k'z_k in the
H-norm. With a lower bound of the spectrum the same coefficients give an upper bound of e_k^2 (Gauss-Radau quadrature), on which
CG stops. An estimate that needs no such bound serves progress and predictions, and nothing that is claimed: it is false where
tiny eigenvalues hold what gains nothing per step.

References
----------
Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; Meurant, Papez & Tichy (2021), DOI 10.1007/s11075-021-01078-w (the estimate);
Meurant & Tichy (2013), DOI 10.1007/s11075-012-9591-9 (the Gauss-Radau bound).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastridge._kernels import vectors
from fastridge.monitor import Monitor
from fastridge.operators.base import Array, Vector, column_dots
from fastridge.preconditioners import Identity, Jacobi, Preconditioner, within_data
from fastridge.problem import ROUNDING, Check, Problem, relative, relative_bound
from fastridge.solution import Answer, Settings

WINDOW = 1e4
"""The ratio of error to decrease is taken over the steps in which the squared error fell by this factor."""
TOGETHER, TOGETHER_SHARE = 2, 8
"""Decreases are summed over two steps, or over an eighth of the steps done: where rounding makes CG meet large eigenvalues again,
some steps gain nothing."""
FIRST_ESTIMATE = 3
"""Steps before the first estimate: with fewer there is no ratio to speak of."""

ROOM = 0.95
"""Share of the tolerance that CG aims at; the rest is for rounding between the recursive residual and the true one."""
PLAIN_STEPS = 4
"""Of plain CG, from an answer that is right: as a rule none to two prove it."""
ENOUGH = 0.1
"""Of the size of an error, up to which a measurement of it may be uncertain."""
MAX_LEGS = 6
"""Each leg gains all the digits that the residual has; a problem that needs more is beyond float64 in this form."""
PROOF_STEPS, PROOF_SHARE = 8, 2
"""Steps that a target may take for its proof once the estimate says that it is done, and half of those it took before besides."""


class EnergyEstimate:
    """Errors of CG iterates from the decreases gamma_k r_k'z_k, for k targets: `sq_bound` is proven, `sq_error` an estimate

    Parameters
    ----------
    sq_residual : (k,) float64
        r'z of the first iterate.
    smallest : (k,) float64
        Lower bounds of the smallest eigenvalue of the preconditioned matrix; 0 where there is none.
    """

    def __init__(self, sq_residual: Vector, smallest: Vector) -> None:
        self.smallest = smallest
        with np.errstate(divide="ignore"):
            self.radau = np.where(smallest > 0, 1.0 / smallest, np.inf)
        self.n_steps = 0
        self._sums = np.empty((16, len(smallest)))
        with np.errstate(over="ignore", invalid="ignore"):
            self.sq_bound = np.where(sq_residual > 0, self.radau * sq_residual, 0.0)
        self.sq_error = self.sq_bound

    def update(self, gamma: Vector, sq_old: Vector, sq_new: Vector) -> None:
        """Take the step of length `gamma` from r'z = `sq_old` to `sq_new`"""
        k = self.n_steps
        if k == len(self._sums):
            self._sums = np.concatenate([self._sums, np.empty_like(self._sums)])
        decrease = gamma * sq_old
        self._sums[k] = 0.0
        self._sums[: k + 1] += decrease
        self.n_steps = k + 1
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rest = self.radau - gamma
            self.radau = np.where(np.isfinite(self.radau), rest / (self.smallest * rest + sq_new / sq_old), 1 / self.smallest)
            self.radau = np.where(self.radau > 0, self.radau, 1 / self.smallest)
            self.sq_bound = np.where(sq_new > 0, self.radau * sq_new, 0.0)
        estimate = self._estimate() if k + 1 >= FIRST_ESTIMATE else self.sq_bound
        self.sq_error = np.where(sq_new > 0, np.minimum(estimate, self.sq_bound), 0.0)

    def _estimate(self) -> Vector:
        """Squared error of the iterate a few steps ago, which that of the latest does not exceed"""
        sums = self._sums[: self.n_steps]
        together = max(TOGETHER, self.n_steps // TOGETHER_SHARE)
        latest = sums[-together]
        past = sums[:-together]
        ahead = past - sums[together:]  # what `together` steps gained, from every earlier iterate on
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(ahead > 0, past / ahead, 1.0)
        # Iterates from the last one whose error was WINDOW times today's on; all where there is none.
        large = past >= WINDOW * latest
        first = np.where(large.any(axis=0), len(large) - 1 - np.argmax(large[::-1], axis=0), 0)
        inside = np.arange(len(ratios))[:, None] >= first
        estimate: Vector = latest * np.where(inside, ratios, 1.0).max(axis=0)
        return estimate

    @property
    def total(self) -> Vector:
        """Lower bound of the squared error of the first iterate; where CG began at zero, of ||x||_H^2 (exact for the latest x)"""
        return self._sums[0] if self.n_steps else np.zeros(len(self.smallest))

    def keep(self, targets: np.ndarray) -> None:
        """Drop all targets but these"""
        self.smallest, self.radau = self.smallest[targets], self.radau[targets]
        self.sq_error, self.sq_bound = self.sq_error[targets], self.sq_bound[targets]
        self._sums = self._sums[:, targets]


@dataclass
class Run:
    """Where conjugate gradients ended, for every target: the iterate, its recursive residual, and squared H-norm errors of w

    `sq_bound` is proven but for what rounding keeps between the recursive residual and the true one. `sq_gained` is the decrease
    from the first iterate, whose squared error is at least that, and at most that and `sq_bound`.
    """

    x: Vector
    residual: Vector
    n_iter: np.ndarray
    sq_error: Vector
    sq_bound: Vector
    sq_size: Vector
    sq_gained: Vector
    history: tuple[float, ...]


@dataclass(frozen=True)
class First:
    """The iterate that a warm start begins with: the multiple of a guess that is nearest to the answer in the norm of M

    By its being nearest ||x*||^2 = ||x||^2 + ||x* - x||^2 in that norm, so that CG knows the size of x* as it does from zero.

    Attributes
    ----------
    x, residual, rhs : (c, k)
        The iterate, b - M x, and b.
    sq_size : (k,)
        x'M x.
    """

    x: Vector
    residual: Vector
    rhs: Vector
    sq_size: Vector

    @classmethod
    def of(cls, problem: Problem, start: Vector | None) -> First | None:
        """The best multiple of `start`, (c, k): where that is no use (not finite, orthogonal to b), zero"""
        if start is None or start.shape != problem.rhs.shape:
            return None
        rhs = problem.rhs
        with np.errstate(all="ignore"):
            largest = np.abs(start).max(axis=0, initial=0.0)
            usable = np.isfinite(largest) & (largest > 0)
            x = np.ascontiguousarray(np.where(usable, start / np.where(usable, largest, 1.0), 0.0))
        if problem.wide and (null := problem.design.left_null) is not None:  # the answer has nothing there, and CG stays off
            x -= null @ (null.T @ x)
        image = rhs - problem.check(x).residual
        # x'b / x'M x is at least zero along the way to the answer.
        curvature, slope = column_dots(x, image), column_dots(x, rhs)
        with np.errstate(all="ignore"):
            length = np.where(usable & (curvature > 0), slope / curvature, 0.0)
            length = np.where(np.isfinite(length * largest), length, 0.0)
        x *= length
        return cls(x, rhs - image * length, rhs, length**2 * np.maximum(curvature, 0.0))


def conjugate_gradient(
    problem: Problem,
    x: Vector,
    residual: Vector,
    preconditioner: Preconditioner,
    sq_size: Vector | None,
    tol: float | Vector,
    max_iter: int,
    go_on: Callable[[float, float], bool],
    first: First | None = None,
    hurried: bool = False,
) -> Run:
    """Run preconditioned CG on M x = b for all targets until the bound of the error is at most `tol`

    Every target stops by itself and leaves the block. A target that no bound can be had of stops by the estimate.

    Parameters
    ----------
    problem : Problem
    x, residual : (c, k)
        First iterate and its residual; both are overwritten.
    preconditioner : Preconditioner
    sq_size : (k,) or None
        ||w||_H^2 that errors are relative to; None where x is zero or `first` says what it is: then the iterates themselves
        tell.
    tol : float or (k,)
    go_on : callable
        Takes the estimate and the bound of the relative error after every step and says whether to go on.
    first : First or None
        Where a warm start begins.
    hurried : bool
        Whether a target whose estimate has been at most `tol` for long stops as well: there the bound knows too little of the
        spectrum, and another way to prove the answer costs less.
    """
    k = x.shape[1]
    n_iter = np.zeros(k, dtype=np.int64)
    sq_errors, sq_bounds, sq_sizes, sq_first = (np.full(k, np.inf), np.full(k, np.inf), np.zeros(k), np.zeros(k))
    end_x, end_residual = x, residual
    active = np.arange(k)
    penalty = problem.penalty
    start = residual if first is None else first.rhs
    if problem.wide and sq_size is None and first is None:
        start = residual.copy()
    sq_start = np.zeros(k) if first is None else first.sq_size
    z = preconditioner.apply(residual)
    p = z.copy()
    sq_residual = column_dots(residual, z)
    estimate = EnergyEstimate(sq_residual, preconditioner.smallest)
    wanted, unproven = np.broadcast_to(tol, k), np.zeros(k, dtype=np.int64)
    history: list[float] = []
    fitted = np.zeros(k) if problem.sq_fitted is None else problem.sq_fitted

    def errors() -> tuple[Vector, Vector, Vector]:
        if problem.wide:
            # w = A'x and x are a primal-dual pair: r'r bounds the error of w.
            sq = column_dots(residual, residual)
            sq_bound = np.where(penalty > 0, sq, np.inf)
            if sq_size is not None:
                return sq, sq_bound, sq_size[active]
            sizes = np.empty(len(sq))
            vectors.wide_sizes(start, residual, x, penalty, sizes)
            return sq, sq_bound, sizes
        return estimate.sq_error, estimate.sq_bound, sq_start[active] + estimate.total if sq_size is None else sq_size[active]

    for step in range(1, max_iter + 1):
        q = problem.normal(p, penalty)
        curvature = column_dots(p, q)
        gamma = np.divide(sq_residual, curvature, out=np.zeros_like(curvature), where=curvature > 0)
        vectors.step(x, residual, p, q, gamma)
        z = preconditioner.apply(residual)
        sq_new = column_dots(residual, z)
        estimate.update(gamma, sq_residual, sq_new)
        sq_error, sq_bound, size = errors()
        if sq_size is None:
            size = size + fitted[active]
        error = relative(sq_error, size)
        history.append(float(error.max()))
        bound = relative(sq_bound, size)
        stop = not go_on(history[-1], float(bound.max()))
        passed = error <= wanted
        unproven = np.where(passed, unproven + 1, 0)
        # A step of length zero: the residual is zero, or not a direction of positive curvature is left.
        done = (bound <= wanted) | (gamma == 0) | (step == max_iter) | stop
        done |= passed & np.isinf(sq_bound)
        if hurried:
            done |= unproven > PROOF_STEPS + (step - unproven) // PROOF_SHARE
        if done.any():
            ended = active[done]
            n_iter[ended] = step
            sq_errors[ended], sq_bounds[ended], sq_sizes[ended] = sq_error[done], sq_bound[done], size[done]
            sq_first[ended] = estimate.total[done]
            if len(active) < k:
                end_x[:, ended], end_residual[:, ended] = x[:, done], residual[:, done]
            if done.all():
                break
            if len(active) == k:
                end_x, end_residual = x.copy(), residual.copy()
            keep = np.flatnonzero(~done)
            active, penalty, sq_residual, sq_new = active[keep], penalty[keep], sq_residual[keep], sq_new[keep]
            wanted, unproven = wanted[keep], unproven[keep]
            x, residual, p, z, start = (np.ascontiguousarray(v[:, keep]) for v in (x, residual, p, z, start))
            preconditioner = preconditioner.keep(keep)
            estimate.keep(keep)
        vectors.direction(p, z, np.divide(sq_new, sq_residual, out=np.zeros_like(sq_new), where=sq_residual > 0))
        sq_residual = sq_new
    return Run(end_x, end_residual, n_iter, sq_errors, sq_bounds, sq_sizes, sq_first, tuple(history))


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


def most_steps(problem: Problem, settings: Settings) -> int:
    """The steps that CG may take"""
    return max(1000, 10 * len(problem.rhs)) if settings.max_iter is None else settings.max_iter


def recurrence_drift(problem: Problem, run: Run) -> Vector:
    """Bound of ||r - (b - M x)|| in the M^-1-norm after a run from a residual that was computed, (k,)

    A step gamma p has the M-norm sqrt(gamma r'z); the rounding of M p is at most that of two products with A, of which the second
    costs 1 / sqrt(alpha).
    """
    steps = np.sqrt(run.n_iter * run.sq_gained)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 4 * ROUNDING * problem.frobenius * np.where(steps > 0, steps / np.sqrt(problem.penalty), 0.0)
