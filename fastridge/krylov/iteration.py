"""Preconditioned conjugate gradients on M x = b for several right-hand sides at once, from zero or from a warm start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastridge._kernels import vectors
from fastridge.krylov.estimate import EnergyEstimate
from fastridge.operators.base import Vector, column_dots
from fastridge.preconditioners import Preconditioner
from fastridge.problem import Problem, relative
from fastridge.solution import Settings

PROOF_STEPS, PROOF_SHARE = 8, 2
"""Steps that a target may take for its proof once the estimate says that it is done, and half of those it took before besides."""


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


def most_steps(problem: Problem, settings: Settings) -> int:
    """The steps that CG may take"""
    return max(1000, 10 * len(problem.rhs)) if settings.max_iter is None else settings.max_iter
