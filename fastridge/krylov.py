"""Conjugate gradients for several right-hand sides at once, and what their coefficients tell about the error.

For H x = b, CG's step lengths give the decrease of the squared error exactly: e_k^2 - e_{k+1}^2 = gamma_k r_k'z_k in the
H-norm. A sum of the next few decreases is a lower bound of e_k^2 (Gauss quadrature), and the largest ratio of error to decrease
over the last four orders of magnitude scales the latest decreases to an estimate of the error that is left.

References
----------
Hestenes & Stiefel (1952), DOI 10.6028/jres.049.044; Meurant, Papez & Tichy (2021), DOI 10.1007/s11075-021-01078-w (the estimate);
Meurant & Tichy (2013), DOI 10.1007/s11075-012-9591-9 (the Gauss-Radau bound).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastridge._kernels import vectors
from fastridge.lines import Vector
from fastridge.preconditioners import Jacobi, Preconditioner
from fastridge.problem import Check, Problem, column_dots, relative
from fastridge.solution import Answer, Settings

WINDOW = 1e4
"""The ratio of error to decrease is taken over the steps in which the squared error fell by this factor."""
SAFETY = 2.0
"""The estimate of the squared error is multiplied by this before it is believed."""
TOGETHER, TOGETHER_SHARE = 2, 8
"""Decreases are taken in sums of so many steps, or an eighth of those done: where rounding makes CG meet large eigenvalues again,
some steps gain nothing."""
FIRST_ESTIMATE = 3
"""Steps before the first estimate: with fewer there is no ratio to speak of."""
TRUSTED_SHARE, TRUSTED_START = 4, 250
"""Only the bound is believed past a fourth of the steps that end CG in exact arithmetic, less these."""

PROBE_RATIO = 10.0
"""Of squared error to the decrease in one step from the true residual, where that is the first to see the error."""


class EnergyEstimate:
    """Errors of CG iterates from the decreases gamma_k r_k'z_k, for k targets

    Parameters
    ----------
    sq_residual : (k,) float64
        r'z of the first iterate.
    smallest : (k,) float64
        Lower bounds of the smallest eigenvalue of the preconditioned matrix; 0 where there is none.
    expected : float
        What that eigenvalue should be by the make of the preconditioner; 0 where there is no telling.
    """

    def __init__(self, sq_residual: Vector, smallest: Vector, expected: float = 0.0) -> None:
        self.smallest, self.expected = smallest, expected
        with np.errstate(divide="ignore"):
            self.radau = np.where(smallest > 0, 1.0 / smallest, np.inf)
        self.n_steps = 0
        self._sums = np.empty((16, len(smallest)))
        self.sq_error = np.full(len(smallest), np.inf)
        self.sq_bound = self.radau * sq_residual

    def update(self, gamma: Vector, sq_old: Vector, sq_new: Vector) -> None:
        """Take the step of length `gamma` from r'z = `sq_old` to `sq_new`"""
        k = self.n_steps
        if k == len(self._sums):
            self._sums = np.concatenate([self._sums, np.empty_like(self._sums)])
        decrease = gamma * sq_old
        self._sums[k] = 0.0
        self._sums[: k + 1] += decrease
        self.n_steps = k + 1
        # A step that gains more than the expected eigenvalue allows has met a smaller one.
        if (gamma * self.expected > SAFETY).any():
            self.expected = 0.0
        if self.expected:
            self.sq_error = SAFETY**2 * sq_new / self.expected
        elif k + 1 >= FIRST_ESTIMATE:
            self.sq_error = self._estimate()
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = self.radau - gamma
            self.radau = np.where(np.isfinite(self.radau), rest / (self.smallest * rest + sq_new / sq_old), 1 / self.smallest)
            self.radau = np.where(self.radau > 0, self.radau, 1 / self.smallest)
            self.sq_bound = np.where(sq_new > 0, self.radau * sq_new, 0.0)
        self.sq_error = np.where(sq_new > 0, np.minimum(self.sq_error, self.sq_bound), 0.0)

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
        estimate: Vector = SAFETY * latest * np.where(inside, ratios, 1.0).max(axis=0)
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

    `expected` is the preconditioner's, or 0 where the steps have shown it to be wrong.
    """

    x: Vector
    residual: Vector
    n_iter: np.ndarray
    sq_error: Vector
    sq_bound: Vector
    sq_size: Vector
    sq_first_error: Vector
    history: tuple[float, ...]
    expected: float


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
        if problem.wide and problem.silent is not None:  # the answer has nothing there, and CG stays off
            x -= problem.silent @ (problem.silent.T @ x)
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
    tol: float,
    max_iter: int,
    on_step: Callable[[int, float], None] | None = None,
    first: First | None = None,
) -> Run:
    """Run preconditioned CG on M x = b for all targets until the estimated error is at most `tol`

    Every target stops by itself and leaves the block.

    Parameters
    ----------
    problem : Problem
    x, residual : (c, k)
        First iterate and its residual; both are overwritten.
    preconditioner : Preconditioner
    sq_size : (k,) or None
        ||w||_H^2 that errors are relative to; None where x is zero or `first` says what it is: then the iterates themselves
        tell.
    first : First or None
        Where a warm start begins.
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
    estimate = EnergyEstimate(sq_residual, preconditioner.smallest, preconditioner.expected)
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
        size = sq_start[active] + estimate.total if sq_size is None else sq_size[active]
        # With as many steps as there are directions CG still meets new ones, which no estimate from its past foresees.
        if TRUSTED_SHARE * (estimate.n_steps + TRUSTED_START) > len(x):
            return np.where(estimate.smallest > 0, estimate.sq_bound, estimate.sq_error), estimate.sq_bound, size
        return estimate.sq_error, estimate.sq_bound, size

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
        worst = relative(sq_error, size)
        history.append(float(worst.max()))
        if on_step is not None:
            on_step(step, history[-1])
        # A step of length zero: the residual is zero, or not a direction of positive curvature is left.
        done = (worst <= tol) | (gamma == 0) | (step == max_iter)
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
            x, residual, p, z, start = (np.ascontiguousarray(v[:, keep]) for v in (x, residual, p, z, start))
            preconditioner = preconditioner.keep(keep)
            estimate.keep(keep)
        vectors.direction(p, z, np.divide(sq_new, sq_residual, out=np.zeros_like(sq_new), where=sq_residual > 0))
        sq_residual = sq_new
    return Run(end_x, end_residual, n_iter, sq_errors, sq_bounds, sq_sizes, sq_first, tuple(history), estimate.expected)


def measure(problem: Problem, check: Check, max_iter: int) -> Vector:
    """Return the relative error of an answer, (k,), by a few CG steps on M e = residual: the size of e, and what is left"""
    sq_bound = problem.sq_bound(check.residual)
    enough = 0.3  # relative to the error measured
    plain = replace(problem, sq_fitted=None)  # e is of the small side alone
    run = conjugate_gradient(
        plain, np.zeros_like(check.residual), check.residual.copy(), Jacobi.of(problem), None, enough, max_iter
    )
    return relative(np.minimum(run.sq_size + run.sq_error, sq_bound), check.sq_size)


def relative_bound(sq_bound: Vector, check: Check) -> Vector:
    """Bound relative to ||w*||_H, with what the rounding of the residual may hide added"""
    return relative((np.sqrt(sq_bound) + check.rounding) ** 2, check.sq_size)


def settle(
    problem: Problem,
    penalties: Vector,
    x: Vector,
    n_iter: np.ndarray,
    sq_error: Vector,
    settings: Settings,
    history: tuple[float, ...],
    workspace_bytes: int,
) -> Answer:
    """Compute the residuals of the answers `x`, (c, k), at `penalties` of the one target from the data, and what they say

    `sq_error` is an estimate. Where the bound does not pass, a step from the residual (which `x` takes) shows whether it is true.
    """
    k = len(penalties)
    w = np.empty((problem.design.shape[1], k))
    error, bound, sq_size = np.empty(k), np.empty(k), np.empty(k)
    size = problem.targets_at_once
    for lo in range(0, k, size):
        part = slice(lo, min(lo + size, k))
        here = problem.select(np.zeros(part.stop - lo, dtype=np.intp), penalties[part])
        at = np.ascontiguousarray(x[:, part])
        check = here.check(at)
        sq_bound = here.sq_bound(check.residual)
        estimate = sq_bound if problem.wide else np.minimum(sq_error[part], sq_bound)
        proven, passed = (relative(sq, check.sq_size) <= settings.tol for sq in (sq_bound, estimate))
        doubtful = np.flatnonzero(passed & ~proven)
        if len(doubtful):
            some = here.select(doubtful, penalties[part][doubtful])
            first_x, first_residual = (np.ascontiguousarray(v[:, doubtful]) for v in (at, check.residual))
            run = conjugate_gradient(some, first_x, first_residual, Jacobi.of(some), check.sq_size[doubtful], settings.tol, 1)
            at[:, doubtful] = run.x
            probed = np.maximum(estimate[doubtful], PROBE_RATIO * run.sq_first_error)
            estimate[doubtful] = np.minimum(probed, sq_bound[doubtful])
            x[:, part] = at
        w[:, part] = check.w if problem.wide else at
        error[part], bound[part] = relative(estimate, check.sq_size), relative_bound(sq_bound, check)
        sq_size[part] = check.sq_size
    return Answer(w, n_iter, error, bound, sq_size, workspace_bytes=workspace_bytes, history=history, x=x)
